//! The rest of the processor, as vector instructions need it.

use iced_x86::{Instruction, Register};

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
/// Memory operands are numbered as in [`Instruction::op_kind`]; the number of bytes is the length
/// of the slice. Accesses that wrap or cross pages are the implementation's, as are segment and
/// canonical checks, and #AC.
pub trait Operands {
    /// Exception as the processor delivers it: the error that ends an instruction.
    type Fault;

    /// Reads memory from `offset` bytes after the start of memory operand `operand`.
    ///
    /// # Errors
    ///
    /// The fault of the access.
    fn load_at(
        &mut self,
        instruction: &Instruction,
        operand: u32,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), Self::Fault>;

    /// Writes memory from `offset` bytes after the start of memory operand `operand`. Nothing is
    /// written if any byte faults.
    ///
    /// # Errors
    ///
    /// The fault of the access.
    fn store_at(
        &mut self,
        instruction: &Instruction,
        operand: u32,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Self::Fault>;

    /// Reads an element of a VSIB memory operand: `index` (sign-extended) takes the place of the
    /// vector index register.
    ///
    /// # Errors
    ///
    /// The fault of the access.
    fn load_element(
        &mut self,
        instruction: &Instruction,
        operand: u32,
        index: i64,
        bytes: &mut [u8],
    ) -> Result<(), Self::Fault>;

    /// Linear address of memory operand `operand`, for alignment checks.
    fn linear_address(&self, instruction: &Instruction, operand: u32) -> u64;

    /// Offset of memory operand `operand` within its segment, for the x87 data pointer.
    fn effective_address(&self, instruction: &Instruction, operand: u32) -> u64;

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
    fn rip(&self) -> u64;

    /// Opcode of an x87 instruction as FNSTENV shows it: the low three bits of its first byte, and
    /// its second (ModR/M) byte. A processor that does not keep the bytes of an instruction can
    /// leave this out.
    fn x87_opcode(&self, instruction: &Instruction) -> u16 {
        let _ = instruction;
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
    fn load(&mut self, instruction: &Instruction, operand: u32, bytes: &mut [u8]) -> Result<(), Self::Fault> {
        self.load_at(instruction, operand, 0, bytes)
    }

    /// Writes a memory operand from its start.
    ///
    /// # Errors
    ///
    /// The fault of the access.
    #[inline]
    fn store(&mut self, instruction: &Instruction, operand: u32, bytes: &[u8]) -> Result<(), Self::Fault> {
        self.store_at(instruction, operand, 0, bytes)
    }

    /// Checks that `size` bytes, at most 32, can be written to a memory operand. An instruction
    /// that raises an unmasked floating-point exception does not write, but the fault of the access
    /// has priority. The default reads the operand, and so overlooks memory that is read-only.
    ///
    /// # Errors
    ///
    /// The fault of the access.
    fn check_store(
        &mut self,
        instruction: &Instruction,
        operand: u32,
        size: usize,
    ) -> Result<(), Self::Fault> {
        let mut bytes = [0; 32];
        self.load(instruction, operand, bytes.get_mut(..size).unwrap_or_default())
    }

    /// Reads a memory operand that is aligned to its size, a power of two.
    ///
    /// # Errors
    ///
    /// #GP(0) if it is misaligned, or the fault of the access.
    #[inline]
    fn load_aligned(
        &mut self,
        instruction: &Instruction,
        operand: u32,
        bytes: &mut [u8],
    ) -> Result<(), Self::Fault> {
        if is_aligned(self.linear_address(instruction, operand), bytes.len()) {
            self.load(instruction, operand, bytes)
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
    fn store_aligned(
        &mut self,
        instruction: &Instruction,
        operand: u32,
        bytes: &[u8],
    ) -> Result<(), Self::Fault> {
        if is_aligned(self.linear_address(instruction, operand), bytes.len()) {
            self.store(instruction, operand, bytes)
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
