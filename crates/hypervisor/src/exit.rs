//! VM exits, and the entries that answer them.

use std::fmt;

use crate::DebugCause;

/// Reason of a vCPU to stop running guest code: a VM exit.
///
/// One exit is one access of one element: a hypervisor that is handed a whole string instruction at
/// once (`rep insb`) reports its elements one after the other.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The guest reads an I/O port (`in`, `ins`). Answer with [`Entry::Data`].
    PortIn {
        /// The port.
        port: u16,
        /// Width of the access in bytes: 1, 2 or 4.
        width: u8,
    },
    /// The guest writes an I/O port (`out`, `outs`). Continue with [`Entry::Resume`].
    PortOut {
        /// The port.
        port: u16,
        /// Width of the access in bytes: 1, 2 or 4.
        width: u8,
        /// Value written, zero-extended.
        value: u32,
    },
    /// The guest reads a guest-physical address that is not RAM. Answer with [`Entry::Data`].
    MmioRead {
        /// The guest-physical address.
        address: u64,
        /// Length in bytes, 1 to 8; not always a power of two (an access may cross a page).
        width: u8,
    },
    /// The guest writes a guest-physical address that is not RAM. Continue with [`Entry::Resume`].
    MmioWrite {
        /// The guest-physical address.
        address: u64,
        /// Length in bytes, 1 to 8; not always a power of two (an access may cross a page).
        width: u8,
        /// Value written, little-endian, zero-extended.
        value: u64,
    },
    /// The guest executed `vmcall`/`vmmcall`, and the hypervisor passes such calls on. Answer with
    /// [`Entry::Data`], the call's result.
    Hypercall {
        /// The call's number.
        number: u64,
        /// Its arguments.
        arguments: [u64; 6],
    },
    /// The guest reads a model-specific register that the hypervisor does not handle. Answer with
    /// [`Entry::Data`], or with [`Entry::Fault`] to raise #GP.
    MsrRead {
        /// The register's index (ECX).
        index: u32,
    },
    /// The guest writes a model-specific register that the hypervisor does not handle. Continue
    /// with [`Entry::Resume`], or with [`Entry::Fault`] to raise #GP.
    MsrWrite {
        /// The register's index (ECX).
        index: u32,
        /// The value (EDX:EAX).
        value: u64,
    },
    /// The guest executed HLT and the hypervisor leaves waiting to the caller. Enter again once an
    /// interrupt is pending.
    Halt,
    /// The guest cannot continue: a triple fault, or a shutdown state (Intel SDM vol. 3, 7.15,
    /// "#DF").
    Shutdown,
    /// The guest or the hypervisor asks for something that concerns the whole machine.
    System(SystemEvent),
    /// The guest can take an external interrupt now (RFLAGS.IF set, no shadow). Only if asked for.
    InterruptWindow,
    /// The guest lowered CR8, so that interrupts may be due now. Only with
    /// [`crate::DirectInterrupts`].
    TprBelowThreshold,
    /// A breakpoint, watchpoint or single step was hit. Only if asked for.
    Debug {
        /// Guest-virtual address of the instruction.
        rip: u64,
        /// Cause of the stop.
        cause: DebugCause,
    },
    /// All instructions of the [`crate::InstructionBudget`] are executed. Only if there is one.
    InstructionLimit {
        /// Guest-virtual address of the next instruction.
        rip: u64,
    },
    /// The processor refused to enter the guest: its state is invalid. End the guest.
    EntryFailed {
        /// The hardware's reason (Intel SDM vol. 3, 28.8; AMD APM vol. 2, appendix C).
        hardware_reason: u64,
    },
    /// The hypervisor gave up on the guest, for example on an instruction it cannot emulate. End
    /// the guest.
    InternalError(InternalError),
    /// Another thread asked for attention through [`crate::Kicker::kick`], or a signal arrived. No
    /// guest access is pending.
    Kicked,
    /// An exit this vocabulary has no word for. End the guest.
    Unknown {
        /// The hypervisor's own number of the exit reason.
        reason: u32,
    },
}

/// A request that concerns the whole machine.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemEvent {
    /// Power off.
    PowerOff,
    /// Reset, as by the reset button.
    Reset,
    /// The guest says that it has crashed.
    Crash,
    /// Another event, by the hypervisor's number.
    Other(u32),
}

/// Failure of a hypervisor to run a guest any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InternalError {
    /// The hypervisor's suberror; KVM: 1 emulation failed, 2 simultaneous exceptions, 3 delivery of
    /// an event, 4 unexpected exit reason.
    pub suberror: u32,
    /// The bytes at RIP, where the hypervisor gives them.
    pub instruction: InstructionBytes,
    /// The hypervisor's further data words.
    pub data: [u64; 4],
}

impl InternalError {
    /// Returns `true` if the hypervisor could not execute an instruction, and the vCPU is before
    /// it.
    #[must_use]
    pub const fn is_unknown_instruction(&self) -> bool {
        self.suberror == 1
    }
}

/// Up to 15 bytes of the instruction at RIP (the longest there is: Intel SDM vol. 2, 2.3.11).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct InstructionBytes {
    length: u8,
    bytes: [u8; 15],
}

impl InstructionBytes {
    /// No bytes.
    pub const EMPTY: Self = Self { length: 0, bytes: [0; 15] };

    /// Takes the first 15 bytes of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut taken = [0; 15];
        let mut length = 0_u8;
        for (to, from) in taken.iter_mut().zip(bytes) {
            *to = *from;
            length = length.saturating_add(1);
        }
        Self { length, bytes: taken }
    }

    /// The bytes; empty if the hypervisor gave none.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl fmt::Debug for InstructionBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for InstructionBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.length == 0 {
            return f.write_str("not known");
        }
        for (position, byte) in self.as_slice().iter().enumerate() {
            if position > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Answer to an exit, with which a vCPU is entered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Entry {
    /// Nothing. If the last exit was a read, the guest gets all ones, as from a bus where nothing
    /// answers.
    #[default]
    Resume,
    /// The answer to a read; only the bytes that the access is wide are used.
    Data(u64),
    /// Refuse an MSR access: the guest gets #GP. After other exits the same as [`Entry::Resume`].
    Fault,
}

impl Entry {
    /// The data a pending read of any width is answered with.
    pub const fn data(self) -> u64 {
        match self {
            Self::Data(value) => value,
            Self::Resume | Self::Fault => u64::MAX,
        }
    }
}

/// The kinds of [`Exit`], for counting.
#[allow(missing_docs, reason = "each is the exit of the same name")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitKind {
    PortIn,
    PortOut,
    MmioRead,
    MmioWrite,
    Hypercall,
    MsrRead,
    MsrWrite,
    Halt,
    Shutdown,
    System,
    InterruptWindow,
    TprBelowThreshold,
    Debug,
    InstructionLimit,
    EntryFailed,
    InternalError,
    Kicked,
    Unknown,
}

impl ExitKind {
    /// All kinds, in the order of their discriminants.
    pub const ALL: [Self; 18] = [
        Self::PortIn,
        Self::PortOut,
        Self::MmioRead,
        Self::MmioWrite,
        Self::Hypercall,
        Self::MsrRead,
        Self::MsrWrite,
        Self::Halt,
        Self::Shutdown,
        Self::System,
        Self::InterruptWindow,
        Self::TprBelowThreshold,
        Self::Debug,
        Self::InstructionLimit,
        Self::EntryFailed,
        Self::InternalError,
        Self::Kicked,
        Self::Unknown,
    ];

    /// A short name in lower case, for tables and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PortIn => "port in",
            Self::PortOut => "port out",
            Self::MmioRead => "mmio read",
            Self::MmioWrite => "mmio write",
            Self::Hypercall => "vmcall",
            Self::MsrRead => "msr read",
            Self::MsrWrite => "msr write",
            Self::Halt => "halt",
            Self::Shutdown => "shutdown",
            Self::System => "system",
            Self::InterruptWindow => "interrupt window",
            Self::TprBelowThreshold => "priority lowered",
            Self::Debug => "debug",
            Self::InstructionLimit => "instruction limit",
            Self::EntryFailed => "entry failed",
            Self::InternalError => "internal error",
            Self::Kicked => "kicked",
            Self::Unknown => "unknown",
        }
    }
}

impl Exit {
    /// The kind of this exit.
    pub const fn kind(&self) -> ExitKind {
        match self {
            Self::PortIn { .. } => ExitKind::PortIn,
            Self::PortOut { .. } => ExitKind::PortOut,
            Self::MmioRead { .. } => ExitKind::MmioRead,
            Self::MmioWrite { .. } => ExitKind::MmioWrite,
            Self::Hypercall { .. } => ExitKind::Hypercall,
            Self::MsrRead { .. } => ExitKind::MsrRead,
            Self::MsrWrite { .. } => ExitKind::MsrWrite,
            Self::Halt => ExitKind::Halt,
            Self::Shutdown => ExitKind::Shutdown,
            Self::System(_) => ExitKind::System,
            Self::InterruptWindow => ExitKind::InterruptWindow,
            Self::TprBelowThreshold => ExitKind::TprBelowThreshold,
            Self::Debug { .. } => ExitKind::Debug,
            Self::InstructionLimit { .. } => ExitKind::InstructionLimit,
            Self::EntryFailed { .. } => ExitKind::EntryFailed,
            Self::InternalError(_) => ExitKind::InternalError,
            Self::Kicked => ExitKind::Kicked,
            Self::Unknown { .. } => ExitKind::Unknown,
        }
    }
}
