//! Programs that run the loops.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

use super::{Sample, rom};

/// The line after which only those of loops come.
const START: &str = "start 0";
/// Time for one loop.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program and how to start it.
pub(super) struct Rival {
    name: &'static str,
    command: Vec<String>,
}

impl Rival {
    fn new(name: &'static str, program: &Path, words: &[&str]) -> Self {
        let program = program.display().to_string();
        let command = std::iter::once(program).chain(words.iter().map(|&word| word.to_owned()));
        Self { name, command: command.collect() }
    }

    /// `vmm` with its processor in software.
    pub(super) fn vmm(program: &Path, guest: &Path) -> Self {
        Self::new("vmm", program, &["run", "--accel", "software", &guest.display().to_string()])
    }

    /// QEMU without KVM.
    pub(super) fn tcg(program: &Path, guest: &Path) -> Self {
        let words =
            "-accel tcg -nodefaults -no-user-config -display none -serial stdio -m 64 -kernel";
        let guest = guest.display().to_string();
        Self::new("TCG", program, &words.split(' ').chain([guest.as_str()]).collect::<Vec<_>>())
    }

    /// Bochs, with a BIOS that starts the guest.
    pub(super) fn bochs(program: &Path, guest: &Path, folder: &Path) -> Result<Self> {
        let write = |name, contents: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, contents)
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok::<_, anyhow::Error>(path.display().to_string())
        };
        let image = fs::read(guest).with_context(|| format!("cannot read {}", guest.display()))?;
        let bios = write("bios", &rom::image(&image)?)?;
        // Debian's is built with its debugger, which waits for a command.
        let commands = write("commands", b"c\n")?;
        let log = folder.join("log").display().to_string();
        let settings = format!(
            "romimage: file={bios}\n\
             vgaromimage: file=$BXSHARE/VGABIOS-lgpl-latest\n\
             display_library: rfb, options=\"timeout=0\"\n\
             com1: enabled=1, mode=file, dev=/dev/stdout\n\
             sound: driver=dummy\n\
             megs: 64\n\
             log: {log}\n"
        );
        let settings = write("settings", settings.as_bytes())?;
        Ok(Self::new("Bochs", program, &["-q", "-f", &settings, "-rc", &commands]))
    }

    /// This host's processor.
    pub(super) fn native(guest: &Path) -> Self {
        Self::new("native", guest, &[])
    }

    /// Name for the table.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

/// A program that has been started. It is stopped by SIGSTOP, but while it is waited for.
pub(super) struct Running {
    child: Child,
    clock: ClockId,
    lines: Receiver<String>,
    /// Processor time that it had taken when the last line came.
    before: Duration,
}

impl Running {
    /// Starts it, and stops it at the beginning of the first loop.
    pub(super) fn start(rival: &Rival) -> Result<Self> {
        let (program, words) = rival.command.split_first().context("no command")?;
        let mut child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let output = child.stdout.take().context("no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let texts = BufReader::new(output).split(b'\n').map_while(Result::ok);
            // Ends when the receiver is gone.
            let _ = texts
                .map(|text| String::from_utf8_lossy(&text).trim_end().to_owned())
                .try_for_each(|line| sender.send(line));
        });
        let clock =
            clock_getcpuclockid(pid(&child)).context("no clock of the program's processor time")?;
        let mut running = Self { child, clock, lines, before: Duration::ZERO };
        while running.line()? != START {}
        running.before = running.time()?;
        running.signal(Signal::SIGSTOP)?;
        Ok(running)
    }

    /// Lets it run to the end of the next loop.
    pub(super) fn sample(&mut self) -> Result<Sample> {
        self.signal(Signal::SIGCONT)?;
        let line = self.line()?;
        // Time that passes until it is stopped belongs to the next loop, as it has begun.
        let now = self.time()?;
        self.signal(Signal::SIGSTOP)?;
        let (kind, instructions) =
            parse(&line).with_context(|| format!("not a line of a loop: {line}"))?;
        let seconds = now.saturating_sub(self.before).as_secs_f64();
        self.before = now;
        Ok(Sample { kind: kind.to_owned(), instructions, seconds })
    }

    fn line(&mut self) -> Result<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(line),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("it is silent for {} seconds", PATIENCE.as_secs())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                bail!("it ended early: {}", self.child.wait()?)
            }
        }
    }

    fn time(&self) -> Result<Duration> {
        Ok(self.clock.now()?.into())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill(pid(&self.child), signal).with_context(|| format!("cannot send {signal}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// The loop's name and number of instructions.
fn parse(line: &str) -> Option<(&str, u64)> {
    let (kind, instructions) = line.rsplit_once(' ')?;
    Some((kind, instructions.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Rival {
        Rival::new("shell", Path::new("/bin/sh"), &["-c", script])
    }

    #[test]
    fn lines_have_a_name_and_a_number() {
        assert_eq!(parse("page tables 300"), Some(("page tables", 300)));
        assert_eq!(parse("300"), None);
        assert_eq!(parse("page tables"), None);
    }

    #[test]
    fn processor_time_counts_and_time_asleep_does_not() {
        let script = "echo banner 7; echo start 0; sleep 0.3; echo idle 1; \
                      i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo busy 2; exec sleep 60";
        let mut running = Running::start(&shell(script)).unwrap();
        let (idle, busy) = (running.sample().unwrap(), running.sample().unwrap());
        assert_eq!((idle.kind.as_str(), idle.instructions), ("idle", 1));
        assert_eq!((busy.kind.as_str(), busy.instructions), ("busy", 2));
        assert!(idle.seconds < busy.seconds, "{idle:?} {busy:?}");
    }

    #[test]
    fn an_early_end_is_an_error() {
        let error = Running::start(&shell("echo nothing; exit 3")).err().unwrap();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        let mut running = Running::start(&shell("echo start 0; echo what")).unwrap();
        assert!(running.sample().unwrap_err().to_string().contains("what"));
    }
}
