//! Kinds of threads, and rules for system calls.

/// The kinds of threads.
#[allow(unreachable_pub, reason = "the build script keeps it for itself")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The thread that builds the machine, starts the others and waits for their end. The others
    /// inherit its filter, so it has to have all that they have.
    Main,
    /// A thread that runs a vCPU and answers its exits.
    Vcpu,
    /// A thread that answers the control socket or a debugger.
    Control,
    /// A thread that works on the queues of a disk or of another device like it.
    Device,
}

/// All kinds.
pub(crate) const KINDS: [Kind; 4] = [Kind::Main, Kind::Vcpu, Kind::Control, Kind::Device];

/// A system call that is allowed.
#[allow(unreachable_pub, reason = "the build script keeps it for itself")]
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its number.
    pub call: i64,
    /// Conditions on its arguments, all of which must be met.
    pub conditions: &'static [Condition],
}

/// A condition on an argument, of which the lower 32 bits count; arguments are counted from 0.
#[allow(unreachable_pub, reason = "the build script keeps it for itself")]
#[derive(Debug, Clone, Copy)]
pub enum Condition {
    /// It is one of these.
    OneOf(u8, &'static [u32]),
    /// These bits of it are as in the value.
    Bits {
        /// Number of the argument.
        argument: u8,
        /// Mask of the bits that count.
        mask: u32,
        /// Value of these bits.
        value: u32,
    },
    /// It is the number of this process.
    OwnProcess(u8),
    /// It is a null pointer.
    Null(u8),
}

pub(crate) const fn any(call: i64) -> Rule {
    Rule { call, conditions: &[] }
}

pub(crate) const fn when(call: i64, conditions: &'static [Condition]) -> Rule {
    Rule { call, conditions }
}
