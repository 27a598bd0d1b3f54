//! Configuration of what watches, limits and saves a run.

use std::path::PathBuf;
use std::time::Duration;

/// Observation of a run, and its limits. An observation that is off costs nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observe {
    /// Measure every exit: how often, how long. Without it, exits are only counted.
    pub statistics: bool,
    /// Record every exit in this file, as lines of JSON.
    pub trace: Option<PathBuf>,
    /// Time after which the machine ends, counted from when its files are opened
    /// ([`crate::Opened::open`]): reading the image is part of it.
    pub time_limit: Option<Duration>,
    /// Press the power button when the machine is to be stopped by the descriptor that
    /// [`crate::Running::wait`] takes, and give the guest this long to power itself off. Only for
    /// guests that are not Hermit.
    pub graceful_stop: Option<Duration>,
    /// End the machine after its vCPUs have executed this many instructions together.
    pub instruction_limit: Option<u64>,
    /// Count the instructions of each function; only with the processor in software.
    pub count: bool,
    /// Count from the first time that the guest comes here, rather than from its start.
    pub count_from: Option<Place>,
    /// Hand the guest over to the other hypervisor once, at this moment; only with two.
    pub switch_at: Option<SwitchAt>,
    /// Let a debugger attach: to a machine that is held before its first instruction, or later.
    pub debug: Option<Debug>,
    /// Reaction to a crash of the guest.
    pub on_crash: OnCrash,
    /// Reaction to a guest that resets the machine.
    pub on_reboot: OnReboot,
    /// Keep what it takes to write snapshots.
    pub snapshots: bool,
    /// Save the guest once, at a moment of its run; it goes on afterwards.
    pub snapshot: Option<PlannedSnapshot>,
    /// Hold a vCPU where it ends the guest, by an exit, a crash, power-off or a reset, until
    /// [`crate::Handle::reset_to`] resumes it from a snapshot or [`crate::Handle::stop`] ends it.
    pub hold_ends: bool,
    /// Leave a guest alone that has halted all its processors with interrupts off, because an NMI
    /// may still wake it, or it is to be inspected. Otherwise that is reported like a crash.
    pub keep_halted: bool,
}

impl Observe {
    /// Returns `true` if snapshots may be written.
    pub(crate) fn saves(&self) -> bool {
        self.snapshots || self.snapshot.is_some()
    }
}

/// A snapshot of a guest that need not know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedSnapshot {
    /// Directory that is made for it. Nothing is overwritten.
    pub directory: PathBuf,
    /// Moment at which the guest is saved.
    pub moment: SnapshotMoment,
}

/// Moment at which a guest is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotMoment {
    /// Before the write to a port by which it exits or powers itself off: when restored, that is
    /// the first thing it does.
    Exit,
    /// After its first output on the console has been passed on. Output of single bytes is passed
    /// on by lines.
    FirstOutput,
}

/// An instruction of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Its address in the image, as linked.
    Address(u64),
    /// The first one of the function with this demangled name.
    Function(String),
}

/// Moment at which a guest is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchAt {
    /// The first time that it comes to an instruction.
    Place(Place),
    /// After its vCPUs have executed so many instructions; only from the processor in software.
    Instructions(u64),
    /// After it has run for so long.
    Time(Duration),
}

/// Reaction to a guest that has crashed, or halted permanently.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OnCrash {
    /// It is ended and reported.
    #[default]
    Report,
    /// The same, and the file becomes an ELF core. It is made when the machine is, and removed
    /// again without a crash; one that was there before is replaced by a crash only.
    Dump(PathBuf),
    /// It is held until a debugger has come and let it go; [`Observe::debug`] says that one can.
    Hold,
}

/// Reaction to a guest that resets the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnReboot {
    /// The machine ends.
    #[default]
    Exit,
    /// It starts again as it did the first time: RAM, vCPUs and devices get the state from before
    /// the first instruction, for which the kernel and what it is handed are kept in memory. A
    /// triple fault counts as a reset then, unless [`OnCrash`] asks for more than a report.
    ///
    /// Only for guests that are not Hermit, which have no way to reset a machine; and not for one
    /// that was restored from a snapshot, whose start is past.
    Restart,
}

/// Start of a machine that can be debugged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debug {
    /// Held before its first instruction: each vCPU once, until it is released.
    Held,
    /// As without a debugger.
    Running,
}
