//! Running the built `vmm`, and images to run it on.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate of its own and uses a part of this"
)]

pub mod clone_guest;
pub mod debugger;
pub mod features;
pub mod image;
pub mod long_runs;
pub mod running;
pub mod tracer;

use std::io::{PipeReader, PipeWriter, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Time after which a run counts as hanging.
const TIME_LIMIT: Duration = Duration::from_secs(300);
/// The same for a guest that is executed one instruction at a time.
pub const STEPPED: Duration = Duration::from_secs(300);

/// A folder that a test works in, with helpers to run `vmm` there. It is removed in the end.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and gives its path as text.
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// `vmm` with these words, in this folder, with no environment but a home here.
    pub fn vmm(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
        command.args(words).current_dir(self.0.path()).stdin(Stdio::null());
        command.env_clear().env("HOME", self.path("home")).env("RUST_BACKTRACE", "1");
        command
    }

    /// Runs `vmm` with these words to its end.
    pub fn run(&self, words: &[&str]) -> Done {
        finish(&mut self.vmm(words))
    }
}

/// Has what `command` starts hear the signals that end a program. `vmm` leaves a signal ignored
/// that was ignored when it started, and shells start what runs in the background in that way,
/// tests too.
pub fn hear_signals(command: &mut Command) -> &mut Command {
    let listen = || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
            // SAFETY: it takes no lock and no memory, as what runs between fork and exec must
            // (signal-safety(7) lists it), and installs no code of ours.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: `listen` does only what may be done between fork and exec, see there.
    unsafe { command.pre_exec(listen) }
}

/// End of a run of `vmm`.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// Checks that it ended with this code and one line on standard error that has all of these
    /// parts.
    #[track_caller]
    pub fn is_error(&self, code: u8, parts: &[&str]) {
        assert_eq!(self.code, i32::from(code), "{self:?}");
        let said = without_host_warnings(&self.stderr);
        assert!(said.starts_with("vmm: error: "), "{self:?}");
        assert_eq!(said.matches('\n').count(), 1, "not one line: {self:?}");
        for part in parts {
            assert!(said.contains(part), "{part:?} is missing: {self:?}");
        }
        assert_eq!(self.stdout, "", "{self:?}");
        self.is_orderly();
    }

    /// Checks that nothing looks like a panic.
    #[track_caller]
    pub fn is_orderly(&self) {
        for word in
            ["panicked", "RUST_BACKTRACE", "stack backtrace", "unwrap", "internal error: entered"]
        {
            assert!(!self.stderr.contains(word), "{self:?}");
        }
    }
}

/// Standard error without warnings about this host's kernel: with read-only mounts, Linux before
/// 6.2 is warned about.
pub fn without_host_warnings(stderr: &str) -> String {
    stderr
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("vmm: warning: this kernel's Landlock "))
        .collect()
}

/// Runs a command to its end, which must come within the time limit.
#[track_caller]
pub fn finish(command: &mut Command) -> Done {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let Output { status, stdout, stderr } = wait(child);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: code(status), stdout: text(stdout), stderr: text(stderr) }
}

/// Waits for a process; a thread ends it at the time limit.
#[track_caller]
pub fn wait(child: Child) -> Output {
    wait_for(child, TIME_LIMIT)
}

/// Waits for a process; a thread ends it after this time.
#[track_caller]
pub fn wait_for(child: Child, limit: Duration) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    let (done, receiver) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let late = receiver.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        late
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    assert!(!watchdog.join().unwrap(), "vmm hangs: {output:?}");
    output
}

/// A pipe that is full, and that nothing reads.
pub fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'.'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// The exit code as a shell sees it.
pub fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap()
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIME_LIMIT, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Copies the program to `to`, where every user may run it.
///
/// Another process writes the copy: a child that a thread of this one starts meanwhile would
/// inherit a file that is open for writing, and such a file cannot be executed (ETXTBSY).
pub fn copy_program(to: &Path) {
    let status = Command::new("cp").arg(env!("CARGO_BIN_EXE_vmm")).arg(to).status().unwrap();
    assert!(status.success(), "cp: {status}");
    open_to_all(to);
}

/// Lets every user read a file and run it, or read a folder and enter it.
pub fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
