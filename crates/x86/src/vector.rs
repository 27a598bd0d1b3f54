//! x87, MMX, SSE and AVX instructions, which [`nerite_x86_vector`] executes, and the conditions
//! that they have in common.

mod moves;

use iced_x86::{CpuidFeature, EncodingKind, Instruction, Mnemonic, OpKind, Register};
use nerite_x86_vector::{Fields, Operands, VectorException, VectorState, lookup};

use crate::access::{crosses, page_offset};
use crate::core::{Core, Run, Stop};
use crate::exception::{GP, MF, NM, UD, XM};
use crate::op::{FLAT, Handler, MEMORY, Op, VECTOR};
use crate::ops::system;
use crate::registers::{
    CR0_EM, CR0_MP, CR0_TS, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE, RAX, RDI, SEGMENT,
};
use crate::tlb::PAGE;

/// Instructions that are gated in the same way (Intel SDM vol. 3, 2.5, table 14-1; vol. 2, 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    X87,
    Wait,
    Mmx,
    Sse,
    Avx,
    Xsave,
    Fxsave,
}

/// Chooses the function for a vector instruction in the present state of control registers.
///
/// Blocks of code are kept by [`Core::gates`], so that they are decoded anew in another state.
pub(crate) fn handler(
    core: &Core,
    instruction: &Instruction,
    bytes: &[u8],
    op: &mut Op,
) -> Option<Handler> {
    let execute = lookup::<Core>(instruction)?;
    op.fields = Fields::new(instruction);
    op.flags |= VECTOR;
    let has_di = (0..instruction.op_count()).any(|operand| {
        matches!(
            instruction.op_kind(operand),
            OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI
        )
    });
    if has_di {
        // The operand of MASKMOVDQU and MASKMOVQ.
        op.flags |= MEMORY;
        op.base = RDI;
        op.segment = SEGMENT.wrapping_add(crate::registers::segment(instruction.memory_segment()));
        match instruction.op_kind(0) {
            OpKind::MemorySegDI => op.flags |= crate::op::ADDRESS_16,
            OpKind::MemorySegEDI => op.flags |= crate::op::ADDRESS_32,
            _ if core.is_64() => op.flags |= FLAT,
            _ => {}
        }
    }
    let class = class(instruction);
    if class == Class::X87 {
        op.imm = x87_opcode(bytes);
    }
    let (is_defined, is_available) = core.admits(class);
    Some(match moves::handler(instruction) {
        _ if !is_defined => system::undefined,
        _ if !is_available => not_available,
        Some(handler) => handler,
        None => execute,
    })
}

/// The opcode of an x87 instruction as FNSTENV shows it, from its bytes with prefixes: the low
/// three bits of the first byte, and the second one.
fn x87_opcode(bytes: &[u8]) -> u64 {
    // No prefix is between these.
    let mut opcode = bytes.iter().skip_while(|byte| !(0xd8..=0xdf).contains(*byte));
    let (first, second) = (opcode.next().copied(), opcode.next().copied());
    u64::from(first.unwrap_or(0) & 7) << 8 | u64::from(second.unwrap_or(0))
}

/// An instruction while CR0 says that its registers are not available.
fn not_available(core: &mut Core, _: &Op) -> Run {
    core.raise(NM)
}

fn class(instruction: &Instruction) -> Class {
    let features = instruction.cpuid_features();
    let uses = |is_kind: fn(Register) -> bool| {
        (0..instruction.op_count()).any(|operand| {
            instruction.op_kind(operand) == OpKind::Register
                && is_kind(instruction.op_register(operand))
        })
    };
    let mnemonic = instruction.mnemonic();
    if instruction.encoding() == EncodingKind::VEX {
        Class::Avx
    } else if mnemonic == Mnemonic::Wait {
        Class::Wait
    } else if features.iter().any(|feature| {
        matches!(feature, CpuidFeature::XSAVE | CpuidFeature::XSAVEC | CpuidFeature::XSAVEOPT)
    }) {
        Class::Xsave
    } else if features.contains(&CpuidFeature::FXSR) {
        Class::Fxsave
    } else if uses(Register::is_xmm) || matches!(mnemonic, Mnemonic::Ldmxcsr | Mnemonic::Stmxcsr) {
        Class::Sse
    } else if uses(Register::is_mm) || mnemonic == Mnemonic::Emms {
        Class::Mmx
    } else {
        Class::X87
    }
}

impl Core {
    /// State of control registers that instructions of this module depend on, six bits.
    pub(crate) fn gates(&self) -> u16 {
        let has_avx = self.xcr0 & 6 == 6 && !self.is_real();
        let bits = [
            self.cr0 & CR0_TS != 0,
            self.cr0 & CR0_EM != 0,
            self.cr0 & CR0_MP != 0,
            self.cr4 & CR4_OSFXSR != 0,
            self.cr4 & CR4_OSXSAVE != 0,
            has_avx,
        ];
        bits.into_iter().fold(0, |gates, bit| gates << 1 | u16::from(bit))
    }

    /// `true`, `true` if instructions of a class are defined, and their registers available. It
    /// depends on no more than [`Core::gates`].
    fn admits(&self, class: Class) -> (bool, bool) {
        let waits = self.cr0 & CR0_TS != 0;
        let emulates = self.cr0 & CR0_EM != 0;
        let is_defined = match class {
            Class::Mmx => !emulates,
            Class::Sse => !emulates && self.cr4 & CR4_OSFXSR != 0,
            Class::Avx => self.cr4 & CR4_OSXSAVE != 0 && self.xcr0 & 6 == 6 && !self.is_real(),
            Class::Xsave => self.cr4 & CR4_OSXSAVE != 0,
            Class::X87 | Class::Wait | Class::Fxsave => true,
        };
        let is_missing = match class {
            Class::X87 | Class::Fxsave => waits || emulates,
            Class::Wait => waits && self.cr0 & CR0_MP != 0,
            _ => waits,
        };
        (is_defined, !is_missing)
    }

    /// The linear address of a part of the memory operand.
    #[inline(always)]
    fn part(&mut self, op: &Op, offset: u64, size: usize, write: bool) -> Run<u64> {
        if op.flags & FLAT != 0 {
            return Ok(self.offset(op).wrapping_add(self.r(op.segment)).wrapping_add(offset));
        }
        let at = self.offset(op).wrapping_add(offset);
        self.segment_address(op.segment_number(), at, size as u64, write)
    }

    /// Reads 16 bytes: at once where they are in a page of RAM that is at hand.
    #[inline(always)]
    fn read_16(&mut self, linear: u64, bytes: &mut [u8; 16]) -> Run {
        let entry = self.tlb.entry(linear);
        if entry.read == linear & PAGE
            && let Some(target) = &entry.target
            && target.page.read_16(page_offset(linear), bytes).is_some()
        {
            return Ok(());
        }
        self.read_bytes(linear, bytes)
    }

    /// Writes 16 bytes: at once where they are in a page of RAM that is at hand.
    #[inline(always)]
    fn write_16(&mut self, linear: u64, bytes: &[u8; 16]) -> Run {
        let entry = self.tlb.entry(linear);
        if entry.write == linear & PAGE
            && let Some(target) = &entry.target
            && target.page.write_16(page_offset(linear), bytes).is_some()
        {
            if target.chunk.lines(entry.address) != 0 {
                self.stored(linear, 16);
            }
            return Ok(());
        }
        self.write_bytes(linear, bytes)
    }

    /// Reads a part of a vector operand.
    #[inline(always)]
    fn read_vector(&mut self, linear: u64, bytes: &mut [u8]) -> Run {
        match bytes.as_chunks_mut::<16>() {
            ([whole], []) => self.read_16(linear, whole),
            ([low, high], []) => {
                self.read_16(linear, low)?;
                self.read_16(linear.wrapping_add(16), high)
            }
            ([], part @ [_, _, _, _]) => {
                part.copy_from_slice(&self.load::<u32>(linear)?.to_le_bytes());
                Ok(())
            }
            ([], part @ [_, _, _, _, _, _, _, _]) => {
                part.copy_from_slice(&self.load::<u64>(linear)?.to_le_bytes());
                Ok(())
            }
            _ => self.read_bytes(linear, bytes),
        }
    }

    /// Writes a part of a vector operand.
    #[inline(always)]
    fn write_vector(&mut self, linear: u64, bytes: &[u8]) -> Run {
        match bytes.as_chunks::<16>() {
            ([whole], []) => self.write_16(linear, whole),
            ([low, high], []) if !crosses(linear, 32) => {
                self.write_16(linear, low)?;
                self.write_16(linear.wrapping_add(16), high)
            }
            ([], [a, b, c, d]) => self.store(linear, u32::from_le_bytes([*a, *b, *c, *d])),
            ([], [a, b, c, d, e, f, g, h]) => {
                self.store(linear, u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
            }
            _ => self.write_bytes(linear, bytes),
        }
    }
}

/// Numbers from `first` to its 15 successors, of which `register` is one.
#[inline(always)]
fn number(register: Register, first: Register) -> Option<u8> {
    let number = (register as u8).wrapping_sub(first as u8);
    (number < 16).then_some(number)
}

impl Operands for Core {
    type Fault = Stop;
    type Op = Op;

    #[inline(always)]
    fn vector(&self) -> &VectorState {
        &self.vector
    }

    #[inline(always)]
    fn vector_mut(&mut self) -> &mut VectorState {
        &mut self.vector
    }

    #[inline(always)]
    fn load_at(&mut self, op: &Op, offset: u64, bytes: &mut [u8]) -> Run {
        let linear = self.part(op, offset, bytes.len(), false)?;
        self.read_vector(linear, bytes)
    }

    #[inline(always)]
    fn store_at(&mut self, op: &Op, offset: u64, bytes: &[u8]) -> Run {
        let linear = self.part(op, offset, bytes.len(), true)?;
        self.write_vector(linear, bytes)
    }

    fn load_element(&mut self, op: &Op, index: i64, bytes: &mut [u8]) -> Run {
        let distance = index.cast_unsigned().wrapping_shl(u32::from(op.scale));
        let linear = self.part(op, distance, bytes.len(), false)?;
        self.read_vector(linear, bytes)
    }

    fn check_store(&mut self, op: &Op, size: usize) -> Run {
        let linear = self.part(op, 0, size, true)?;
        self.check_write(linear, size as u64)
    }

    #[inline(always)]
    fn linear_address(&self, op: &Op) -> u64 {
        self.offset(op).wrapping_add(self.r(op.segment))
    }

    #[inline(always)]
    fn effective_address(&self, op: &Op) -> u64 {
        self.offset(op)
    }

    #[inline(always)]
    fn gpr(&self, register: Register) -> u64 {
        if let Some(number) = number(register, Register::RAX) {
            return self.r(RAX.wrapping_add(number));
        }
        if let Some(number) = number(register, Register::EAX) {
            return self.r(RAX.wrapping_add(number)) & 0xffff_ffff;
        }
        self.sized(crate::registers::register(register), register.size() as u64)
    }

    #[inline(always)]
    fn set_gpr(&mut self, register: Register, value: u64) {
        if let Some(number) = number(register, Register::RAX) {
            self.set_r(number, value);
        } else if let Some(number) = number(register, Register::EAX) {
            self.set_r(number, value & 0xffff_ffff);
        } else {
            self.set_sized(crate::registers::register(register), register.size() as u64, value);
        }
    }

    fn flags(&self) -> u64 {
        self.flags.get()
    }

    fn set_flags(&mut self, mask: u64, value: u64) {
        self.flags.change(mask & crate::flags::STATUS, value);
    }

    fn xcr0(&self) -> u64 {
        self.xcr0
    }

    #[inline(always)]
    fn rip(&self, op: &Op) -> u64 {
        self.rip_of(op)
    }

    #[inline(always)]
    fn x87_opcode(&self, op: &Op) -> u16 {
        // Such an instruction has no immediate operand.
        op.imm as u16
    }

    fn real_mode(&self) -> bool {
        self.is_real()
    }

    fn exception(&mut self, exception: VectorException) -> Stop {
        let result: Run = match exception {
            VectorException::InvalidOpcode => self.raise(UD),
            VectorException::GeneralProtection => self.raise_with(GP, 0),
            VectorException::X87FloatingPoint => self.raise(MF),
            VectorException::SimdFloatingPoint if self.cr4 & CR4_OSXMMEXCPT == 0 => self.raise(UD),
            VectorException::SimdFloatingPoint => self.raise(XM),
        };
        result.err().unwrap_or(Stop::Fault)
    }
}
