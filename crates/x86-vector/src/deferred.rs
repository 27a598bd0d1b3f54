//! Parts of the x87 status word that are found out when they are asked for: to read the host's
//! takes longer than most instructions.

/// Control word of the host: all exceptions masked, 64 bits, to nearest.
pub(crate) const CONTROL: u16 = 0x37f;
/// Status word: exceptions.
const EXCEPTIONS: u16 = 0x3f;
/// Status word: C1.
const C1: u16 = 1 << 9;

/// Parts of the status word that are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deferred {
    Nothing,
    /// Exceptions are in the host's status word.
    Flags,
    /// They are there, and C1 is found by executing the last instruction again.
    Instruction(Again),
}

/// Function that executes an instruction, and returns the host's status word.
type Run = unsafe fn(*mut [u8; 10], *mut [u8; 10], *mut [u8; 16], u64, *const u16) -> u64;

/// An instruction that has been executed, with the operands that it had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Again {
    /// May be called with any valid pointers.
    pub(crate) run: Run,
    pub(crate) a: [u8; 10],
    pub(crate) b: [u8; 10],
    pub(crate) memory: [u8; 16],
    pub(crate) register: u64,
}

impl PartialEq for Again {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.run, other.run)
            && (self.a, self.b, self.memory) == (other.a, other.b, other.memory)
            && self.register == other.register
    }
}

impl Eq for Again {}

impl Deferred {
    /// C1 is known.
    #[inline(always)]
    pub(crate) fn forget_instruction(&mut self) {
        if !matches!(self, Self::Nothing) {
            *self = Self::Flags;
        }
    }

    /// Finds out what is deferred, and returns the status word that has it.
    #[cold]
    #[inline(never)]
    pub(crate) fn complete(&mut self, status: u16) -> u16 {
        match std::mem::replace(self, Self::Nothing) {
            Self::Nothing => status,
            Self::Flags => status | host_status() & EXCEPTIONS,
            Self::Instruction(mut last) => {
                let (a, b, memory) = (&raw mut last.a, &raw mut last.b, &raw mut last.memory);
                let control = [CONTROL; 2];
                // SAFETY: the pointers are made of references.
                let result = unsafe { (last.run)(a, b, memory, last.register, control.as_ptr()) };
                let [low, high, ..] = result.to_le_bytes();
                status & !C1 | u16::from_le_bytes([low, high]) & (C1 | EXCEPTIONS)
            }
        }
    }
}

/// The host's status word.
fn host_status() -> u16 {
    let status: u16;
    // SAFETY: the instruction reads the status word only.
    unsafe { std::arch::asm!("fnstsw ax", out("ax") status, options(nomem, nostack)) };
    status
}
