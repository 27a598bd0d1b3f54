//! Cases and findings as plain data: cases travel to the worker, findings come
//! back as lines of JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Who {
    /// Our `vmm`.
    Ours,
    /// The program we are compared with.
    Peer,
}

impl Who {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Peer => "peer",
        }
    }
}

/// One command to measure. Cases of the same bench are run alternately.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    /// Bench that it is part of.
    pub(crate) bench: String,
    pub(crate) who: Who,
    pub(crate) command: Vec<String>,
    /// Text that standard output must contain; otherwise the guest did not do what is measured.
    pub(crate) expect: String,
    /// Number of timed runs.
    pub(crate) rounds: usize,
    /// `true` if it is also run once to count what it does.
    pub(crate) counted: bool,
    /// Seconds for one run.
    pub(crate) timeout: u64,
}

/// One line of the worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    /// A case was timed.
    Timed { case: usize, run: Run },
    /// A case was counted.
    Counted { case: usize, counts: Counts },
    /// A case does not work, and is not tried again.
    Failed { case: usize, why: String },
}

/// A timed run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// From the start of the process to the first byte of output, in microseconds.
    pub(crate) first: f64,
    /// From the start of the process to its end.
    pub(crate) whole: f64,
    /// Measures of the guest itself: name, value, unit.
    pub(crate) values: Vec<(String, f64, String)>,
}

/// Counts of a run, which do not depend on how fast the machine is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// System calls from the start of the program on, without `KVM_RUN`.
    pub(crate) syscalls: u64,
    /// Exits of the guest to user space, by reason.
    pub(crate) exits: BTreeMap<String, u64>,
    /// Most memory resident at a time, guest memory included, in KiB.
    pub(crate) rss: u64,
    /// Threads, the first included.
    pub(crate) threads: u64,
}

/// Kind of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Less is better; differs from run to run.
    Time,
    /// More is better; differs from run to run.
    Rate,
    /// Less is better; is the same every time.
    Count,
}

/// One measure of one bench.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measure {
    pub(crate) bench: String,
    pub(crate) what: String,
    pub(crate) unit: String,
    pub(crate) kind: Kind,
    /// One a round.
    pub(crate) ours: Vec<f64>,
    /// In the same rounds; empty if the peer cannot do it or is not there.
    pub(crate) peer: Vec<f64>,
}

/// The report that `--json` writes and `--compare` reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Of this format.
    pub(crate) version: u32,
    /// The source that was measured, as git names it.
    pub(crate) source: String,
    /// Hardware or lab, and its kernel.
    pub(crate) platform: String,
    /// The peer's name and version, if there is one.
    pub(crate) peer: Option<String>,
    pub(crate) measures: Vec<Measure>,
    /// Benches that were left out, and why.
    pub(crate) skipped: Vec<String>,
}

/// The version of the format.
pub(crate) const VERSION: u32 = 1;
