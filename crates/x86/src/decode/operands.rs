//! Operands of decoded instructions.

use iced_x86::{Instruction, OpKind, Register};

use crate::core::{Core, Mode};
use crate::op::{ADDRESS_16, ADDRESS_32, FLAT, LOCK, MEMORY, Op, STACK};
use crate::registers::{RIP, SEGMENT, SS, ZERO, register, segment};

/// Width in bytes of the addresses of a memory operand.
pub(crate) fn address_size(core: &Core, instruction: &Instruction) -> u64 {
    let by_register = |register: Register| match register {
        Register::EIP => 4,
        Register::RIP => 8,
        _ => register.size() as u64,
    };
    match (instruction.memory_base(), instruction.memory_index(), instruction.memory_displ_size()) {
        (base, _, _) if base != Register::None => by_register(base),
        (_, index, _) if index != Register::None && index.is_gpr() => by_register(index),
        (_, _, 2) => 2,
        (_, _, 4) => 4,
        (_, _, 8) => 8,
        _ => match core.mode {
            Mode::Bits16 => 2,
            Mode::Bits32 => 4,
            Mode::Bits64 => 8,
        },
    }
}

/// Takes over registers, immediate and memory operand. What kind the operands are is the handler's
/// business.
pub(crate) fn fill(core: &Core, instruction: &Instruction, op: &mut Op) {
    for index in 0..instruction.op_count() {
        match instruction.op_kind(index) {
            OpKind::Register => {
                let number = register(instruction.op_register(index));
                match index {
                    0 => op.dst = number,
                    1 => op.src = number,
                    _ => op.imm = u64::from(number),
                }
            }
            OpKind::Memory => memory(core, instruction, op),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                op.imm = instruction.near_branch_target();
            }
            OpKind::Immediate8_2nd => {}
            _ => {
                if let Ok(value) = instruction.try_immediate(index) {
                    op.imm = value;
                }
            }
        }
    }
    if instruction.has_lock_prefix() {
        op.flags |= LOCK;
    }
}

fn memory(core: &Core, instruction: &Instruction, op: &mut Op) {
    op.flags |= MEMORY;
    let base = instruction.memory_base();
    op.base = match base {
        Register::None => ZERO,
        Register::RIP | Register::EIP => RIP,
        _ => register(base),
    };
    let index = instruction.memory_index();
    op.index = if index.is_gpr() { register(index) } else { ZERO };
    op.scale = u8::try_from(instruction.memory_index_scale().trailing_zeros()).unwrap_or(0);
    op.disp = instruction.memory_displacement64();
    let number = segment(instruction.memory_segment());
    if number == SS {
        op.flags |= STACK;
    }
    op.segment = SEGMENT.wrapping_add(number);
    match address_size(core, instruction) {
        2 => op.flags |= ADDRESS_16,
        4 => op.flags |= ADDRESS_32,
        _ if core.mode == Mode::Bits64 => {
            op.flags |= FLAT;
            // The others have no base in 64-bit mode.
            if number < crate::registers::FS {
                op.segment = ZERO;
            }
        }
        _ => {}
    }
}
