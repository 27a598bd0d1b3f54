//! Jobs: one command with its input, its limits and what came of it.
//!
//! A [`Job`] is plain data, so that the same one can be executed on this host or travel into the
//! lab.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One command to run to its end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    /// Name in reports.
    pub(crate) name: String,
    /// Program and arguments. A program without a slash is looked up in `PATH`.
    pub(crate) command: Vec<String>,
    /// Working directory; `/` where none is named.
    #[serde(default)]
    pub(crate) dir: Option<PathBuf>,
    /// `true` if it runs in an empty folder of its own instead, which goes with it.
    #[serde(default)]
    pub(crate) own_folder: bool,
    /// Standard input given as text, followed by what `stdin_file` holds.
    #[serde(default)]
    pub(crate) stdin: String,
    /// A file to feed to the command's standard input.
    #[serde(default)]
    pub(crate) stdin_file: Option<PathBuf>,
    /// `true` if standard input stays open (and silent) after that, rather than ending.
    #[serde(default)]
    pub(crate) stdin_open: bool,
    /// Seconds after which the command is killed.
    pub(crate) timeout: u64,
    /// A TCP port on which the command listens, and that the lab's host leads to. Such a command is
    /// in the lab's own network.
    #[serde(default)]
    pub(crate) port: Option<u16>,
    /// Host files the command needs, at the same path wherever it runs. In the lab it sees no other
    /// job's.
    #[serde(default)]
    pub(crate) files: Vec<PathBuf>,
    /// A signal to send, and when.
    #[serde(default)]
    pub(crate) kill: Option<Kill>,
    /// Environment variables on top of the small fixed set every job gets.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
}

/// A signal that is sent to the command once it has said something.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kill {
    /// The signal goes out when standard output contains this text.
    pub(crate) after: String,
    /// The signal's name, such as `SIGINT`.
    pub(crate) signal: String,
}

/// Which of a command's two streams some output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// End of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
    /// It was killed because its time was up.
    TimedOut,
    /// It did not run, or nothing is known of its end; the text says why.
    Failed(String),
}

impl Ending {
    /// The status a shell would report: 128+n for signal n, 124 as `timeout` has it, 125 for a job
    /// that did not run.
    pub(crate) fn code(&self) -> i32 {
        match self {
            Self::Exited(code) => *code,
            Self::Signalled(signal) => 128 + signal,
            Self::TimedOut => 124,
            Self::Failed(_) => 125,
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Signalled(signal) => write!(f, "ended by signal {signal}"),
            Self::TimedOut => f.write_str("killed, its time was up"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// Result of a job.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) time: Duration,
}

impl Outcome {
    /// The outcome of a job of which nothing but `why` is known.
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self {
            ending: Ending::Failed(why.into()),
            stdout: Vec::new(),
            stderr: Vec::new(),
            time: Duration::ZERO,
        }
    }
}

/// Numbers of tests that passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}
