//! A processor around the vector state: registers, flags and the memory of a case.

use iced_x86::{Instruction, OpKind, Register};
use nerite_native_oracle::{Case, MEMORY_ADDRESS, MEMORY_SIZE};
use nerite_x86_vector::{Fields, Operands, VectorException, VectorState, XSTATE_ALL};

/// Early end of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Page,
    Exception(VectorException),
}

impl Fault {
    /// The exception's number.
    pub(crate) fn vector(self) -> u32 {
        match self {
            Fault::Page => 14,
            Fault::Exception(VectorException::InvalidOpcode) => 6,
            Fault::Exception(VectorException::GeneralProtection) => 13,
            Fault::Exception(VectorException::X87FloatingPoint) => 16,
            Fault::Exception(VectorException::SimdFloatingPoint) => 19,
        }
    }
}

/// A decoded instruction.
pub(crate) struct Op {
    instruction: Instruction,
    fields: Fields,
}

impl Op {
    pub(crate) fn new(instruction: Instruction) -> Self {
        Self { instruction, fields: Fields::new(&instruction) }
    }
}

impl AsRef<Fields> for Op {
    fn as_ref(&self) -> &Fields {
        &self.fields
    }
}

/// The processor.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) vector: VectorState,
    pub(crate) registers: [u64; 16],
    pub(crate) flags: u64,
    pub(crate) memory: [u8; MEMORY_SIZE],
}

impl Model {
    /// The state of a case.
    pub(crate) fn of(case: &Case) -> Self {
        let vector = VectorState::from_xsave(&case.vector);
        Self { vector, registers: case.registers, flags: case.flags, memory: case.memory }
    }

    fn address(&self, op: &Op, index: Option<i64>) -> u64 {
        let instruction = &op.instruction;
        let operand = (0..instruction.op_count())
            .find(|&operand| {
                matches!(instruction.op_kind(operand), OpKind::Memory | OpKind::MemorySegRDI)
            })
            .expect("a memory operand");
        let value = |register: Register, _, _| match index {
            Some(index) if register.is_vector_register() => Some(index as u64),
            _ if register.is_segment_register() => Some(0),
            _ => Some(self.gpr(register)),
        };
        instruction.virtual_address(operand, 0, value).expect("an address")
    }

    fn range(&self, address: u64, size: usize) -> Result<std::ops::Range<usize>, Fault> {
        let start = address.checked_sub(MEMORY_ADDRESS).ok_or(Fault::Page)?;
        let start = usize::try_from(start).map_err(|_| Fault::Page)?;
        let end = start.checked_add(size).filter(|&end| end <= MEMORY_SIZE).ok_or(Fault::Page)?;
        Ok(start..end)
    }
}

impl Operands for Model {
    type Fault = Fault;
    type Op = Op;

    fn vector(&self) -> &VectorState {
        &self.vector
    }

    fn vector_mut(&mut self) -> &mut VectorState {
        &mut self.vector
    }

    fn load_at(&mut self, op: &Op, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let address = self.address(op, None).wrapping_add(offset);
        bytes.copy_from_slice(&self.memory[self.range(address, bytes.len())?]);
        Ok(())
    }

    fn store_at(&mut self, op: &Op, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let address = self.address(op, None).wrapping_add(offset);
        let range = self.range(address, bytes.len())?;
        self.memory[range].copy_from_slice(bytes);
        Ok(())
    }

    fn load_element(&mut self, op: &Op, index: i64, bytes: &mut [u8]) -> Result<(), Fault> {
        let address = self.address(op, Some(index));
        bytes.copy_from_slice(&self.memory[self.range(address, bytes.len())?]);
        Ok(())
    }

    fn linear_address(&self, op: &Op) -> u64 {
        self.address(op, None)
    }

    fn effective_address(&self, op: &Op) -> u64 {
        self.address(op, None)
    }

    fn gpr(&self, register: Register) -> u64 {
        let value = self.registers[register.full_register().number()];
        match register.size() {
            1 if (Register::AH..=Register::BH).contains(&register) => value >> 8 & 0xff,
            1 => value & 0xff,
            2 => value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        }
    }

    fn set_gpr(&mut self, register: Register, value: u64) {
        let full = &mut self.registers[register.full_register().number()];
        *full = match register.size() {
            2 => *full & !0xffff | value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        };
    }

    fn flags(&self) -> u64 {
        self.flags
    }

    fn set_flags(&mut self, mask: u64, value: u64) {
        self.flags = self.flags & !mask | value & mask;
    }

    fn xcr0(&self) -> u64 {
        XSTATE_ALL & u64::from(nerite_native_oracle::vector_components())
    }

    fn rip(&self, _: &Op) -> u64 {
        0
    }

    fn real_mode(&self) -> bool {
        false
    }

    fn exception(&mut self, exception: VectorException) -> Fault {
        Fault::Exception(exception)
    }
}
