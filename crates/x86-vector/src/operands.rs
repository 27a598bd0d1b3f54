//! The rest of the processor, as vector instructions need it.

use iced_x86::{CodeSize, Instruction, Register};

use crate::state::VectorState;

/// Parts of an instruction that its handler looks at, beside its memory operand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields {
    /// Register operands by their number; none where the operand is another one.
    pub(crate) registers: [Register; 4],
    /// Index register of a memory operand.
    pub(crate) index: Register,
    pub(crate) immediate: u8,
    /// Number of the register ST(i) that the instruction names beside ST(0), or alone.
    pub(crate) stack: u8,
    /// `true` in 64-bit mode, which has 16 vector registers.
    pub(crate) is_64: bool,
}

impl Fields {
    /// The fields of an instruction.
    #[must_use]
    pub fn new(instruction: &Instruction) -> Self {
        let register = |operand| match operand {
            operand if operand < instruction.op_count() => instruction.op_register(operand),
            _ => Register::None,
        };
        let registers = [register(0), register(1), register(2), register(3)];
        let stack = |register: Register| match register {
            register if register.is_st() => u8::try_from(register.number()).unwrap_or(0),
            _ => 0,
        };
        let [first, second, ..] = registers;
        Self {
            registers,
            index: instruction.memory_index(),
            immediate: instruction.immediate8(),
            stack: stack(first) | stack(second),
            is_64: instruction.code_size() == CodeSize::Code64,
        }
    }

    /// Register operand `operand`.
    #[inline(always)]
    pub(crate) fn register(&self, operand: usize) -> Register {
        self.registers.get(operand).copied().unwrap_or(Register::None)
    }

    /// `true` if operand `operand` is a register.
    #[inline(always)]
    pub(crate) fn is_register(&self, operand: usize) -> bool {
        self.register(operand) != Register::None
    }
}

/// Exception that a vector instruction raises of its own accord; page faults and segment violations
/// come from [`Operands`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorException {
    /// #UD.
    InvalidOpcode,
    /// #GP(0): a misaligned operand, a reserved bit of MXCSR, a bad XSAVE header.
    GeneralProtection,
    /// #MF: an x87 exception is pending.
    X87FloatingPoint,
    /// #XM, or #UD if CR4.OSXMMEXCPT is 0: an unmasked SIMD floating-point exception. MXCSR has its
    /// flags already.
    SimdFloatingPoint,
}

/// General registers, flags and memory of the processor that executes a vector instruction.
///
/// An instruction has one memory operand; the number of bytes is the length of the slice. Accesses
/// that wrap or cross pages are the implementation's, as are segment and canonical checks, and #AC.
pub trait Operands {
    /// Exception as the processor delivers it: the error that ends an instruction.
    type Fault;
    /// A decoded instruction, as the processor keeps it.
    type Op: AsRef<Fields>;

    /// The vector registers.
    fn vector(&self) -> &VectorState;

    /// The vector registers.
    fn vector_mut(&mut self) -> &mut VectorState;

    /// Reads memory from `offset` bytes after the start of the memory operand.
    ///
    /// # Errors
    ///
    /// The fault of the access.
    fn load_at(&mut self, op: &Self::Op, offset: u64, bytes: &mut [u8]) -> Result<(), Self::Fault>;

    /// Writes memory from `offset` bytes after the start of the memory operand. Nothing is
    /// written if any byte faults.
    ///
    /// # Errors
    ///
    /// The fault of the access.
    fn store_at(&mut self, op: &Self::Op, offset: u64, bytes: &[u8]) -> Result<(), Self::Fault>;

    /// Reads an element of a VSIB memory operand: `index` (sign-extended) takes the place of the
    /// vector index register.
    ///
    /// # Errors
    ///
    /// The fault of the access.
    fn load_element(
        &mut self,
        op: &Self::Op,
        index: i64,
        bytes: &mut [u8],
    ) -> Result<(), Self::Fault>;

    /// Linear address of the memory operand, for alignment checks.
    fn linear_address(&self, op: &Self::Op) -> u64;

    /// Offset of the memory operand within its segment, for the x87 data pointer.
    fn effective_address(&self, op: &Self::Op) -> u64;

    /// Value of a general register of 8, 16, 32 or 64 bits, zero-extended.
    fn gpr(&self, register: Register) -> u64;

    /// Writes a general register of 8, 16, 32 or 64 bits; one of 32 bits clears the upper half as
    /// the mode demands.
    fn set_gpr(&mut self, register: Register, value: u64);

    /// RFLAGS.
    fn flags(&self) -> u64;

    /// Replaces the bits of RFLAGS that are set in `mask`.
    fn set_flags(&mut self, mask: u64, value: u64);

    /// XCR0.
    fn xcr0(&self) -> u64;

    /// Offset of the instruction within the code segment, for the x87 instruction pointer.
    fn rip(&self, op: &Self::Op) -> u64;

    /// Opcode of an x87 instruction as FNSTENV shows it: the low three bits of its first byte, and
    /// its second (ModR/M) byte. A processor that does not keep the bytes of an instruction can
    /// leave this out.
    fn x87_opcode(&self, op: &Self::Op) -> u16 {
        let _ = op;
        0
    }

    /// `true` in real-address and virtual-8086 mode: FNSTENV and FNSAVE then use their real-address
    /// formats.
    fn real_mode(&self) -> bool;

    /// Makes the fault for `exception`.
    fn exception(&mut self, exception: VectorException) -> Self::Fault;

    /// Reads a memory operand from its start.
    ///
    /// # Errors
    ///
    /// The fault of the access.
    #[inline]
    fn load(&mut self, op: &Self::Op, bytes: &mut [u8]) -> Result<(), Self::Fault> {
        self.load_at(op, 0, bytes)
    }

    /// Writes a memory operand from its start.
    ///
    /// # Errors
    ///
    /// The fault of the access.
    #[inline]
    fn store(&mut self, op: &Self::Op, bytes: &[u8]) -> Result<(), Self::Fault> {
        self.store_at(op, 0, bytes)
    }

    /// Checks that `size` bytes, at most 32, can be written to the memory operand. An instruction
    /// that raises a floating-point exception does so only if its operand can be written. The
    /// default reads the operand, and so overlooks memory that is read-only.
    ///
    /// # Errors
    ///
    /// The fault of the access.
    fn check_store(&mut self, op: &Self::Op, size: usize) -> Result<(), Self::Fault> {
        let mut bytes = [0; 32];
        self.load(op, bytes.get_mut(..size).unwrap_or_default())
    }

    /// Reads a memory operand that is aligned to its size, a power of two.
    ///
    /// # Errors
    ///
    /// #GP(0) if it is misaligned, or the fault of the access.
    #[inline]
    fn load_aligned(&mut self, op: &Self::Op, bytes: &mut [u8]) -> Result<(), Self::Fault> {
        if is_aligned(self.linear_address(op), bytes.len()) {
            self.load(op, bytes)
        } else {
            Err(self.exception(VectorException::GeneralProtection))
        }
    }

    /// Writes a memory operand that is aligned to its size, a power of two.
    ///
    /// # Errors
    ///
    /// #GP(0) if it is misaligned, or the fault of the access.
    #[inline]
    fn store_aligned(&mut self, op: &Self::Op, bytes: &[u8]) -> Result<(), Self::Fault> {
        if is_aligned(self.linear_address(op), bytes.len()) {
            self.store(op, bytes)
        } else {
            Err(self.exception(VectorException::GeneralProtection))
        }
    }
}

/// `true` if `address` is a multiple of `size`, a power of two.
#[inline]
pub(crate) fn is_aligned(address: u64, size: usize) -> bool {
    address & (size as u64).wrapping_sub(1) == 0
}
