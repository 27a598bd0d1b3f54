//! Each rule bites: a process enters the sandbox, tries the forbidden thing, and fails.
//!
//! The process is this test program, started again with the name of what to try; [`child`] is what
//! runs in it. What it cannot say itself any more its parent reads from `/proc`.

#![cfg(test)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the processes talk to each other, and skipped tests say why"
)]

mod child;
mod files;
mod process;
mod root;
mod system_calls;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Exit code of a process that makes a forbidden system call.
const FORBIDDEN: i32 = 243;

/// A process that enters the sandbox and tries something.
struct Attempt {
    command: Command,
}

/// End of an attempt.
#[derive(Debug)]
struct Ended {
    /// Its exit code, or the negative number of the signal that ended it.
    code: i32,
    /// Result of the attempt: `ok`, or an error number.
    found: String,
    stderr: String,
}

impl Attempt {
    /// A process that will do `what`, see [`child::act`].
    fn to(what: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child::process", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env("SANDBOX_TEST_ACTION", what).env_remove("RUST_BACKTRACE");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command }
    }

    /// Sets something about the sandbox, see [`child::policy`].
    fn with(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(format!("SANDBOX_TEST_{name}"), value);
        self
    }

    fn mounting(self, path: &Path, access: &str) -> Self {
        self.with("MOUNT", path).with("ACCESS", access)
    }

    fn start(mut self) -> Child {
        self.command.spawn().unwrap()
    }

    fn run(self) -> Ended {
        use std::os::unix::process::ExitStatusExt as _;
        let output = self.start().wait_with_output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        let found = stdout
            .lines()
            .find_map(|line| line.split_once("found: "))
            .map(|(_, found)| found.to_owned());
        Ended {
            code: output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0)),
            found: found.unwrap_or_default(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    fn finds(self, expected: &str) {
        let ended = self.run();
        assert_eq!((ended.found.as_str(), ended.code), (expected, 0), "{ended:?}");
    }

    /// Enters the sandbox and stays there for as long as `look` looks at the process from outside.
    fn observed<T>(self, look: impl FnOnce(u32) -> T) -> T {
        let mut child = self.start();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("found: waiting") {
            line.clear();
            if stdout.read_line(&mut line).unwrap() == 0 {
                let mut stderr = String::new();
                child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
                panic!("it ended early: {:?} {stderr}", child.wait());
            }
        }
        let result = look(child.id());
        child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert!(child.wait().unwrap().success());
        result
    }
}

/// A line of `/proc/PID/status`.
fn status(process: u32, name: &str) -> String {
    // The thread that entered, not the one that reads arguments and waits.
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let newest = tasks
        .map(|task| task.unwrap().file_name().into_string().unwrap())
        .max_by_key(|id| id.len() * 1_000_000_000 + id.parse::<usize>().unwrap());
    let text = std::fs::read_to_string(format!("/proc/{process}/task/{}/status", newest.unwrap()))
        .unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
