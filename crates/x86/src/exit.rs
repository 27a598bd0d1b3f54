//! Reasons to leave the guest, and the answers.

/// Reason why [`crate::Cpu::run`] returned.
///
/// An access to a device is reported before the instruction that makes it is complete. The next
/// [`crate::Cpu::run`] takes the answer and finishes the instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// The guest reads an I/O port. Answer with [`Entry::Data`].
    PortIn {
        /// The port.
        port: u16,
        /// Width in bytes: 1, 2 or 4.
        width: u8,
    },
    /// The guest writes an I/O port. Answer with [`Entry::Resume`].
    PortOut {
        /// The port.
        port: u16,
        /// Width in bytes: 1, 2 or 4.
        width: u8,
        /// The value, zero-extended.
        value: u32,
    },
    /// The guest reads a guest-physical address that is not RAM. Answer with [`Entry::Data`].
    MmioRead {
        /// The guest-physical address.
        address: u64,
        /// Length in bytes, 1 to 8.
        width: u8,
    },
    /// The guest writes a guest-physical address that is not RAM. Answer with [`Entry::Resume`].
    MmioWrite {
        /// The guest-physical address.
        address: u64,
        /// Length in bytes, 1 to 8.
        width: u8,
        /// The value, little-endian, zero-extended.
        value: u64,
    },
    /// The guest reads a model-specific register that the processor does not have. Answer with
    /// [`Entry::Data`], or with [`Entry::Fault`] to raise #GP.
    MsrRead {
        /// The register's index (ECX).
        index: u32,
    },
    /// The guest writes a model-specific register that the processor does not have. Answer with
    /// [`Entry::Resume`], or with [`Entry::Fault`] to raise #GP.
    MsrWrite {
        /// The register's index (ECX).
        index: u32,
        /// The value (EDX:EAX).
        value: u64,
    },
    /// The guest executed HLT, which is complete. Enter again once an interrupt is pending.
    Halt,
    /// A triple fault: the processor has shut down (Intel SDM vol. 3, 6.15, interrupt 8). Only
    /// [`crate::Cpu::init`] or a new state starts it again.
    Shutdown,
    /// The guest can take an external interrupt now. Only after
    /// [`crate::Cpu::request_interrupt_window`].
    InterruptWindow,
    /// The guest lowered CR8: interrupts of a lower priority may be due now.
    PriorityLowered,
    /// A breakpoint or debug exception that [`crate::Cpu::intercept_debug`] asked for. It is not
    /// delivered.
    Debug {
        /// RIP of the instruction (#BP), or of the next one for a trap.
        rip: u64,
        /// Vector: 1 (#DB) or 3 (#BP).
        vector: u8,
        /// DR6 bits of the event.
        dr6: u64,
    },
    /// Another thread called [`crate::Kicker::kick`].
    Kicked,
    /// The budget of [`crate::Cpu::run`] is used up.
    Budget,
}

/// Answer to the last [`Exit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Entry {
    /// No data. A pending read gives all ones, as from a bus without a device there.
    #[default]
    Resume,
    /// The value of a read; only the bytes that the access is wide are used.
    Data(u64),
    /// An access to a model-specific register raises #GP. After other exits the same as
    /// [`Entry::Resume`].
    Fault,
}

/// Longest record of device accesses of one instruction. XSAVE to a device is the longest: 832
/// bytes.
const ACCESSES: usize = 512;

/// The device accesses of an instruction that is not complete.
///
/// The instruction is executed from its start after each answer. An access that was answered before
/// is answered from here.
#[derive(Debug, Default)]
pub(crate) struct Accesses {
    answers: Vec<Entry>,
    next: usize,
    /// The access that was reported last.
    pending: bool,
}

impl Accesses {
    /// The answer to the next access of the instruction, if there is one already.
    pub(crate) fn next(&mut self) -> Option<Entry> {
        let answer = self.answers.get(self.next).copied();
        match answer {
            Some(_) => self.next = self.next.wrapping_add(1),
            None => self.pending = true,
        }
        answer
    }

    /// Takes the answer to the access that was reported, if there was one.
    pub(crate) fn answer(&mut self, entry: Entry) {
        self.rewind();
        if std::mem::take(&mut self.pending) && self.answers.len() < ACCESSES {
            self.answers.push(entry);
        }
    }

    /// Begins with the instruction anew.
    pub(crate) fn rewind(&mut self) {
        self.next = 0;
    }

    /// Begins with a new instruction.
    pub(crate) fn clear(&mut self) {
        self.answers.clear();
        self.next = 0;
        self.pending = false;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.answers.is_empty() && !self.pending
    }

    /// Instructions with more accesses than are recorded never end.
    pub(crate) fn is_full(&self) -> bool {
        self.answers.len() >= ACCESSES
    }
}
