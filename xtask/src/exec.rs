//! Executes a [`Job`] on the machine this program runs on: the host, or the inside of the lab.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tempfile::TempDir;

use crate::job::{Ending, Job, Stream};
use crate::signals;

/// Output beyond this many bytes per stream is dropped: a guest that prints without end must not
/// fill the host.
const MAX_OUTPUT: usize = 16 << 20;
/// Time for output that trickles in after the command has ended.
const DRAIN: Duration = Duration::from_secs(10);
/// Pieces of output that may wait; then the command waits, as it would for a slow terminal.
const PIECES: usize = 16;
/// Search path of a job, the same on the host and in the lab.
pub(crate) const PATH: &str = "/bin:/sbin:/usr/bin:/usr/sbin:/usr/local/bin";

enum Event {
    Piece(Stream, Vec<u8>),
    Closed,
    Ended,
}

/// Runs `job` to its end and hands its output to `output` as it comes. Whatever it started is gone
/// afterwards.
pub(crate) fn execute(job: &Job, output: &mut dyn FnMut(Stream, &[u8])) -> (Ending, Duration) {
    let start = Instant::now();
    let folder = job.own_folder.then(own_folder).transpose();
    let child = folder.as_ref().map_err(String::clone).and_then(|folder| {
        let named = folder.as_ref().map(TempDir::path).or(job.dir.as_deref());
        spawn(job, named.unwrap_or("/".as_ref()))
    });
    let ending = match child {
        Ok(child) => supervise(job, child, start, output),
        Err(why) => Ending::Failed(why),
    };
    (ending, start.elapsed())
}

/// An empty folder, in which any user may make files: some jobs change theirs.
fn own_folder() -> Result<TempDir, String> {
    let make = || {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777))?;
        Ok(folder)
    };
    make().map_err(|error: std::io::Error| format!("cannot make a folder for the job: {error}"))
}

fn spawn(job: &Job, dir: &Path) -> Result<Child, String> {
    let (program, arguments) = job.command.split_first().ok_or("the job has no command")?;
    let mut command = if signals::some_are_ignored() {
        // A program inherits that a signal is ignored (execve(2)), as a shell arranges for SIGINT
        // when it starts something in the background. Jobs are sent signals, so they get all of
        // them as by default.
        let mut command = Command::new("env");
        command
            .arg("--default-signal")
            .arg(find(program).ok_or(format!("cannot run {program}: not found"))?);
        command
    } else {
        Command::new(program)
    };
    command.args(arguments).env_clear().envs([
        ("PATH", PATH),
        ("HOME", home()),
        ("LANG", "C.UTF-8"),
    ]);
    command.envs(&job.env).current_dir(dir);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command.spawn().map_err(|e| format!("cannot run {program}: {e}"))
}

/// Home folder of a job: nothing that this user has set up is in it. A folder of root's would be an
/// error for an ordinary user's programs, and one that does not exist is none.
fn home() -> &'static str {
    if rustix::process::geteuid().is_root() { "/root" } else { "/nonexistent" }
}

/// Path of a program; one without a slash is looked up in [`PATH`].
fn find(program: &str) -> Option<PathBuf> {
    let is_there = |path: &PathBuf| path.is_file();
    if program.contains('/') {
        return Some(program.into()).filter(is_there);
    }
    PATH.split(':').map(|folder| Path::new(folder).join(program)).find(is_there)
}

fn supervise(
    job: &Job,
    mut child: Child,
    start: Instant,
    output: &mut dyn FnMut(Stream, &[u8]),
) -> Ending {
    let (sender, events) = mpsc::sync_channel(PIECES);
    let pid = Pid::from_child(&child);
    feed(job, &mut child);
    if let Some(stdout) = child.stdout.take() {
        read_all(Stream::Out, stdout, sender.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        read_all(Stream::Err, stderr, sender.clone());
    }
    thread::spawn(move || {
        // Leaves the zombie in place, so the process id stays ours until the child is reaped below.
        let _ = rustix::process::waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        );
        let _ = sender.send(Event::Ended);
    });

    let mut deadline = start + Duration::from_secs(job.timeout);
    let mut kill =
        job.kill.as_ref().map(|kill| Marker { text: kill.after.as_bytes(), tail: Vec::new() });
    let (mut open, mut running, mut timed_out) = (2, true, false);
    while open > 0 || running {
        let left = deadline.saturating_duration_since(Instant::now());
        let event =
            if left.is_zero() { Err(RecvTimeoutError::Timeout) } else { events.recv_timeout(left) };
        match event {
            Ok(Event::Piece(stream, bytes)) => {
                if stream == Stream::Out && kill.as_mut().is_some_and(|marker| marker.seen(&bytes))
                {
                    kill = None;
                    send_signal(pid, job);
                }
                output(stream, &bytes);
            }
            Ok(Event::Closed) => open -= 1,
            Ok(Event::Ended) => {
                running = false;
                deadline = Instant::now() + DRAIN;
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            }
            Err(RecvTimeoutError::Timeout) if running && !timed_out => {
                timed_out = true;
                deadline = Instant::now() + DRAIN;
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            }
            Err(_) => break,
        }
    }
    if timed_out {
        // A process stuck in the kernel cannot be reaped; then it is left behind rather than waited
        // for.
        let _ = child.try_wait();
        return Ending::TimedOut;
    }
    match child.wait() {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exited(code),
            (None, Some(signal)) => Ending::Signalled(signal),
            (None, None) => Ending::Failed(format!("ended in an unknown way: {status}")),
        },
        Err(e) => Ending::Failed(format!("cannot wait for it: {e}")),
    }
}

/// Gives the child its standard input from a thread, since the child may read it late or never.
fn feed(job: &Job, child: &mut Child) {
    let Some(mut stdin) = child.stdin.take() else { return };
    let (text, file, keep_open) = (job.stdin.clone(), job.stdin_file.clone(), job.stdin_open);
    let timeout = Duration::from_secs(job.timeout);
    thread::spawn(move || {
        // A child that ends without reading its input is no error.
        let _ = stdin.write_all(text.as_bytes());
        if let Some(mut file) = file.and_then(|path| File::open(path).ok()) {
            let _ = std::io::copy(&mut file, &mut stdin);
        }
        if keep_open {
            thread::sleep(timeout + DRAIN);
        }
    });
}

fn read_all(stream: Stream, mut from: impl Read + Send + 'static, sender: SyncSender<Event>) {
    thread::spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        let mut total = 0;
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            total += n;
            let piece = buffer.get(..n).unwrap_or_default().to_vec();
            if total <= MAX_OUTPUT && sender.send(Event::Piece(stream, piece)).is_err() {
                return;
            }
            // Beyond the limit it is read and dropped, so that the command does not hang on a full
            // pipe.
        }
        let _ = sender.send(Event::Closed);
    });
}

/// Looks for a text in a stream that comes in pieces.
struct Marker<'a> {
    text: &'a [u8],
    tail: Vec<u8>,
}

impl Marker<'_> {
    fn seen(&mut self, piece: &[u8]) -> bool {
        self.tail.extend_from_slice(piece);
        let found =
            self.text.is_empty() || self.tail.windows(self.text.len()).any(|w| w == self.text);
        let keep = self.text.len().saturating_sub(1);
        self.tail.drain(..self.tail.len().saturating_sub(keep));
        found
    }
}

fn send_signal(pid: Pid, job: &Job) {
    if let Some(signal) = job.kill.as_ref().and_then(|kill| signal_named(&kill.signal)) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The signal of that name, with or without `SIG`.
pub(crate) fn signal_named(name: &str) -> Option<Signal> {
    Some(match name.strip_prefix("SIG").unwrap_or(name) {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "KILL" => Signal::KILL,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "TERM" => Signal::TERM,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Kill;

    fn shell(script: &str) -> Job {
        Job {
            name: "test".to_owned(),
            command: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
            timeout: 20,
            ..Job::default()
        }
    }

    fn run(job: &Job) -> (Ending, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (ending, _) = execute(job, &mut |stream, bytes| match stream {
            Stream::Out => out.extend_from_slice(bytes),
            Stream::Err => err.extend_from_slice(bytes),
        });
        (ending, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn streams_and_status_are_kept_apart() {
        let result = run(&shell("echo out; echo err >&2; exit 42"));
        assert_eq!(result, (Ending::Exited(42), "out\n".to_owned(), "err\n".to_owned()));
    }

    #[test]
    fn stdin_ends_after_its_text() {
        let job = Job { stdin: "one two\n".to_owned(), ..shell("cat; echo end") };
        assert_eq!(run(&job).1, "one two\nend\n");
    }

    #[test]
    fn stdin_kept_open_does_not_end() {
        let job = Job { stdin: "x\n".to_owned(), stdin_open: true, timeout: 1, ..shell("cat") };
        let (ending, out, _) = run(&job);
        assert_eq!((ending, out.as_str()), (Ending::TimedOut, "x\n"));
    }

    #[test]
    fn a_job_over_its_time_is_killed_with_its_children() {
        let job = Job { timeout: 1, ..shell("sleep 100 & sleep 100") };
        let start = Instant::now();
        assert_eq!(run(&job).0, Ending::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn endless_output_ends_with_the_time() {
        let job = Job { timeout: 1, ..shell("yes") };
        let (start, mut length) = (Instant::now(), 0);
        let (ending, _) = execute(&job, &mut |_, bytes| length += bytes.len());
        assert_eq!(ending, Ending::TimedOut);
        assert!(length <= MAX_OUTPUT, "{length} bytes");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_folder_of_its_own_is_empty_and_goes_with_the_job() {
        let job = Job { own_folder: true, ..shell("pwd; ls -A; stat -c %a .; touch left") };
        let (_, first, _) = run(&job);
        let (folder, rest) = first.split_once('\n').unwrap();
        assert_eq!(rest, "1777\n");
        assert!(!Path::new(folder).exists());
        assert_ne!(run(&job).1, first);
    }

    #[test]
    fn a_child_left_behind_does_not_hold_the_job_up() {
        let start = Instant::now();
        assert_eq!(run(&shell("sleep 100 & exit 3")).0, Ending::Exited(3));
        assert!(start.elapsed() < Duration::from_secs(8));
    }

    #[test]
    fn a_signal_follows_its_marker() {
        let kill = Some(Kill { after: "ready".to_owned(), signal: "SIGTERM".to_owned() });
        let job = Job {
            kill,
            ..shell("trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.1; done")
        };
        assert_eq!(run(&job).0, Ending::Exited(9));
        let kill = Some(Kill { after: "go".to_owned(), signal: "SIGINT".to_owned() });
        assert_eq!(
            run(&Job { kill, ..shell("printf g; printf o; exec sleep 50") }).0,
            Ending::Signalled(2)
        );
    }

    /// These tests once more, with signals ignored as `nohup` and a shell without job control have
    /// it.
    #[test]
    fn signals_that_the_parent_ignored_reach_jobs() {
        let script = "trap '' HUP INT QUIT TERM; exec \"$0\" --exact \"$@\"";
        let tests = ["a_signal_follows_its_marker", "a_program_that_is_not_there_is_named"];
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(std::env::current_exe().unwrap());
        let output =
            command.args(tests.map(|test| format!("exec::tests::{test}"))).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("2 passed"), "{text}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let job =
            Job { command: vec!["/no/such/program".to_owned()], timeout: 1, ..Job::default() };
        assert!(matches!(run(&job).0, Ending::Failed(why) if why.contains("/no/such/program")));
    }
}
