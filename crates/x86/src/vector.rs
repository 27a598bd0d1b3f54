//! x87, MMX, SSE and AVX instructions, which [`nerite_x86_vector`] executes, and the conditions
//! that they have in common.

mod moves;

use iced_x86::{CpuidFeature, EncodingKind, Instruction, Mnemonic, OpKind, Register};
use nerite_x86_vector::{Handler, Operands, VectorException, VectorState, lookup};

use crate::access::{crosses, page_offset};
use crate::core::{
    CR0_EM, CR0_MP, CR0_TS, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE, Core, RDI, Run, SEGMENT, Stop,
};
use crate::exception::{GP, MF, NM, UD, XM};
use crate::op::{self, FLAT, MEMORY, Op};
use crate::tlb::PAGE;

/// A vector instruction in full.
pub(crate) struct Vector {
    instruction: Instruction,
    execute: Handler<Core>,
}

/// What control registers say about an instruction (Intel SDM vol. 3, 2.5, table 14-1; vol. 2,
/// 2.4).
const X87: u8 = 0;
const WAIT: u8 = 1;
const MMX: u8 = 2;
const SSE: u8 = 3;
const AVX: u8 = 4;
const XSAVE: u8 = 5;
const FXSAVE: u8 = 6;

/// The memory operand of the instruction in execution.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Operand {
    /// Offset in the segment.
    offset: u64,
    /// Number of the segment.
    segment: u8,
    is_flat: bool,
    /// The linear address, if the operand is flat.
    linear: u64,
    rip: u64,
}

/// Chooses the function for a vector instruction.
pub(crate) fn handler(core: &Core, instruction: &Instruction, op: &mut Op) -> Option<op::Handler> {
    let execute = lookup::<Core>(instruction)?;
    if let Some(handler) = moves::handler(instruction) {
        return Some(handler);
    }
    op.vector = Some(Box::new(Vector { instruction: *instruction, execute }));
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
        op.segment = SEGMENT.wrapping_add(crate::decode::segment(instruction.memory_segment()));
        match instruction.op_kind(0) {
            OpKind::MemorySegDI => op.flags |= op::ADDRESS_16,
            OpKind::MemorySegEDI => op.flags |= op::ADDRESS_32,
            _ if core.is_64() => op.flags |= FLAT,
            _ => {}
        }
    }
    Some(match class(instruction) {
        X87 => run::<X87>,
        WAIT => run::<WAIT>,
        MMX => run::<MMX>,
        SSE => run::<SSE>,
        AVX => run::<AVX>,
        XSAVE => run::<XSAVE>,
        _ => run::<FXSAVE>,
    })
}

fn class(instruction: &Instruction) -> u8 {
    let features = instruction.cpuid_features();
    let uses = |is_kind: fn(Register) -> bool| {
        (0..instruction.op_count()).any(|operand| {
            instruction.op_kind(operand) == OpKind::Register && is_kind(instruction.op_register(operand))
        })
    };
    let mnemonic = instruction.mnemonic();
    if instruction.encoding() == EncodingKind::VEX {
        AVX
    } else if mnemonic == Mnemonic::Wait {
        WAIT
    } else if features
        .iter()
        .any(|feature| matches!(feature, CpuidFeature::XSAVE | CpuidFeature::XSAVEC | CpuidFeature::XSAVEOPT))
    {
        XSAVE
    } else if features.contains(&CpuidFeature::FXSR) {
        FXSAVE
    } else if uses(Register::is_xmm) || matches!(mnemonic, Mnemonic::Ldmxcsr | Mnemonic::Stmxcsr) {
        SSE
    } else if uses(Register::is_mm) || mnemonic == Mnemonic::Emms {
        MMX
    } else {
        X87
    }
}

/// Executes an instruction of a class.
fn run<const CLASS: u8>(core: &mut Core, op: &Op) -> Run {
    check::<CLASS>(core)?;
    let Some(vector) = &op.vector else { return core.undefined() };
    let is_flat = op.flags & FLAT != 0;
    if op.flags & MEMORY != 0 {
        let offset = core.offset(op);
        core.operand = Operand {
            offset,
            segment: op.segment_number(),
            is_flat,
            linear: if is_flat { offset.wrapping_add(core.r(op.segment)) } else { 0 },
            rip: 0,
        };
    }
    if CLASS == X87 {
        core.operand.rip = core.rip_of(op);
    }
    let Some(mut state) = core.vector.take() else { return core.undefined() };
    let result = (vector.execute)(&mut state, &vector.instruction, core);
    core.vector = Some(state);
    result
}

/// Checks control registers.
#[inline(always)]
fn check<const CLASS: u8>(core: &mut Core) -> Run {
    let waits = core.cr0 & CR0_TS != 0;
    let is_defined = match CLASS {
        MMX => core.cr0 & CR0_EM == 0,
        SSE => core.cr0 & CR0_EM == 0 && core.cr4 & CR4_OSFXSR != 0,
        AVX => core.cr4 & CR4_OSXSAVE != 0 && core.xcr0 & 6 == 6 && !core.is_real(),
        XSAVE => core.cr4 & CR4_OSXSAVE != 0,
        _ => true,
    };
    if !is_defined {
        return core.undefined();
    }
    let is_missing = match CLASS {
        X87 | FXSAVE => waits || core.cr0 & CR0_EM != 0,
        WAIT => waits && core.cr0 & CR0_MP != 0,
        _ => waits,
    };
    if is_missing { core.raise(NM) } else { Ok(()) }
}

impl Core {
    /// The linear address of a part of the memory operand.
    #[inline(always)]
    fn part(&mut self, offset: u64, size: usize, write: bool) -> Run<u64> {
        let operand = self.operand;
        if operand.is_flat {
            return Ok(operand.linear.wrapping_add(offset));
        }
        let at = operand.offset.wrapping_add(offset);
        self.segment_address(operand.segment, at, size as u64, write)
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

impl Operands for Core {
    type Fault = Stop;

    #[inline]
    fn load_at(&mut self, _: &Instruction, _: u32, offset: u64, bytes: &mut [u8]) -> Run {
        let linear = self.part(offset, bytes.len(), false)?;
        self.read_vector(linear, bytes)
    }

    #[inline]
    fn store_at(&mut self, _: &Instruction, _: u32, offset: u64, bytes: &[u8]) -> Run {
        let linear = self.part(offset, bytes.len(), true)?;
        self.write_vector(linear, bytes)
    }

    fn load_element(&mut self, instruction: &Instruction, _: u32, index: i64, bytes: &mut [u8]) -> Run {
        let scale = u64::from(instruction.memory_index_scale());
        let distance = index.cast_unsigned().wrapping_mul(scale);
        let linear = self.part(distance, bytes.len(), false)?;
        self.read_vector(linear, bytes)
    }

    fn linear_address(&self, _: &Instruction, _: u32) -> u64 {
        let operand = &self.operand;
        if operand.is_flat {
            return operand.linear;
        }
        operand.offset.wrapping_add(self.r(SEGMENT.wrapping_add(operand.segment)))
    }

    fn effective_address(&self, _: &Instruction, _: u32) -> u64 {
        self.operand.offset
    }

    fn gpr(&self, register: Register) -> u64 {
        self.sized(crate::decode::register(register), register.size() as u64)
    }

    fn set_gpr(&mut self, register: Register, value: u64) {
        self.set_sized(crate::decode::register(register), register.size() as u64, value);
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

    fn rip(&self) -> u64 {
        self.operand.rip
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

/// A vector state as after a reset.
pub(crate) fn initial() -> Option<Box<VectorState>> {
    Some(Box::default())
}
