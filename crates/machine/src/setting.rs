//! [`Setting`]: settings that not every guest takes.

use std::fmt;

/// A setting that has a meaning for some guests only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Setting {
    /// Initial file systems or modules.
    InitialFileSystem,
    /// The command line of a kernel that is not Hermit.
    CommandLine,
    /// The port that ends the machine.
    DebugExit,
    /// Disks.
    Disk,
    /// Arguments of a Hermit kernel.
    KernelArguments,
    /// Environment variables of the application.
    Environment,
    /// Files of the host.
    Mounts,
    /// Counts of executed instructions.
    Counting,
    /// A clock that counts instructions.
    VirtualClock,
    /// A limit of instructions.
    InstructionLimit,
    /// A moment at which the guest is handed over.
    SwitchAt,
    /// A place to count from.
    CountFrom,
    /// A restart when the guest reboots.
    Restart,
    /// A snapshot at a moment of the run.
    Snapshot,
    /// The power button as the way to stop the guest.
    GracefulStop,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InitialFileSystem => "initial file system",
            Self::CommandLine => "command line",
            Self::DebugExit => "debug-exit port",
            Self::Disk => "disk",
            Self::KernelArguments => "kernel arguments",
            Self::Environment => "environment variables",
            Self::Mounts => "mounts",
            Self::Counting => "instruction counts",
            Self::VirtualClock => "virtual clock",
            Self::InstructionLimit => "instruction limit",
            Self::SwitchAt => "moment of a hand-over",
            Self::CountFrom => "place to count from",
            Self::Restart => "restart at a reboot",
            Self::Snapshot => "snapshot",
            Self::GracefulStop => "graceful stop",
        })
    }
}
