//! The end of a machine.

use std::fmt;

use nerite_inspect::CrashReport;

/// The end of a machine.
#[non_exhaustive]
#[derive(Debug)]
pub enum Outcome {
    /// The guest ended itself with this code.
    Exited(i32),
    /// The guest asked to be powered off.
    PoweredOff,
    /// The guest asked to be reset, as a kernel does that reboots.
    Reset,
    /// The guest asked to be reset through the keyboard controller.
    KeyboardReset,
    /// The escape key was typed.
    EscapeKey,
    /// The guest could not be resumed.
    Crashed(Box<CrashReport>),
    /// It was stopped from outside.
    Stopped,
    /// The time it was given was up.
    TimeLimit,
    /// All instructions it was given are executed: the next would have been that of this vCPU at
    /// this address.
    InstructionLimit {
        /// The vCPU.
        vcpu: u32,
        /// The guest-virtual address of its next instruction.
        rip: u64,
        /// `true` if each was executed on its own; if not, the processor counted.
        stepped: bool,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "guest exited with code {code}"),
            Self::PoweredOff => f.write_str("guest powered off"),
            Self::Reset => f.write_str("guest asked for a reboot"),
            Self::KeyboardReset => {
                f.write_str("guest asked for a reset through the keyboard controller")
            }
            Self::EscapeKey => f.write_str("guest left by the escape key"),
            Self::Crashed(report) => report.fmt(f),
            Self::Stopped => f.write_str("guest stopped"),
            Self::TimeLimit => f.write_str("the guest's time was up"),
            Self::InstructionLimit { vcpu, rip, stepped } => {
                let counted =
                    if *stepped { "executing one instruction at a time" } else { "the processor" };
                write!(
                    f,
                    "all instructions of the guest are executed; vCPU {vcpu} is at {rip:#x} (counted by {counted})"
                )
            }
        }
    }
}
