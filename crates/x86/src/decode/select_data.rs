//! Moves, branches, stack and string instructions.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::forms::{condition, conditional, is_memory, is_register, size, sized};
use crate::core::{Core, Mode};
use crate::op::{ADDRESS_16, ADDRESS_32, BRANCH, Handler, Op, STACK};
use crate::ops::{bcd, branch, data, far, io, string, system};
use crate::registers::{FS, SEGMENT, SS, segment};

pub(super) fn handler(core: &Core, instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    moves(instruction, op)
        .or_else(|| stack(core, instruction, op))
        .or_else(|| branches(core, instruction, op))
        .or_else(|| strings(core, instruction, op))
}

fn moves(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    let first = size(instruction, 0);
    Some(match instruction.mnemonic() {
        Mnemonic::Mov => return mov(instruction, op),
        Mnemonic::Movnti => sized!(first, data::mov_mr),
        Mnemonic::Movzx => match (first, size(instruction, 1)) {
            (2, 1) => data::movzx::<u16, u8>,
            (2, _) => data::movzx::<u16, u16>,
            (4, 1) => data::movzx::<u32, u8>,
            (4, _) => data::movzx::<u32, u16>,
            (_, 1) => data::movzx::<u64, u8>,
            _ => data::movzx::<u64, u16>,
        },
        Mnemonic::Movsx | Mnemonic::Movsxd => match (first, size(instruction, 1)) {
            (2, 1) => data::movsx::<u16, u8>,
            (2, _) => data::movsx::<u16, u16>,
            (4, 1) => data::movsx::<u32, u8>,
            (4, 2) => data::movsx::<u32, u16>,
            (4, _) => data::movsx::<u32, u32>,
            (_, 1) => data::movsx::<u64, u8>,
            (_, 2) => data::movsx::<u64, u16>,
            _ => data::movsx::<u64, u32>,
        },
        Mnemonic::Lea => sized!(first, data::lea),
        Mnemonic::Cmova
        | Mnemonic::Cmovae
        | Mnemonic::Cmovb
        | Mnemonic::Cmovbe
        | Mnemonic::Cmove
        | Mnemonic::Cmovg
        | Mnemonic::Cmovge
        | Mnemonic::Cmovl
        | Mnemonic::Cmovle
        | Mnemonic::Cmovne
        | Mnemonic::Cmovno
        | Mnemonic::Cmovnp
        | Mnemonic::Cmovns
        | Mnemonic::Cmovo
        | Mnemonic::Cmovp
        | Mnemonic::Cmovs => match first {
            2 => conditional!(condition(instruction), data::cmov<u16>),
            4 => conditional!(condition(instruction), data::cmov<u32>),
            _ => conditional!(condition(instruction), data::cmov<u64>),
        },
        Mnemonic::Seta
        | Mnemonic::Setae
        | Mnemonic::Setb
        | Mnemonic::Setbe
        | Mnemonic::Sete
        | Mnemonic::Setg
        | Mnemonic::Setge
        | Mnemonic::Setl
        | Mnemonic::Setle
        | Mnemonic::Setne
        | Mnemonic::Setno
        | Mnemonic::Setnp
        | Mnemonic::Setns
        | Mnemonic::Seto
        | Mnemonic::Setp
        | Mnemonic::Sets => conditional!(condition(instruction), data::setcc),
        Mnemonic::Bswap => sized!(first, data::bswap),
        Mnemonic::Movbe if is_memory(instruction, 0) => sized!(first, data::movbe_store),
        Mnemonic::Movbe => sized!(first, data::movbe_load),
        Mnemonic::Cbw => data::extend::<u16>,
        Mnemonic::Cwde => data::extend::<u32>,
        Mnemonic::Cdqe => data::extend::<u64>,
        Mnemonic::Cwd => data::spread::<u16>,
        Mnemonic::Cdq => data::spread::<u32>,
        Mnemonic::Cqo => data::spread::<u64>,
        Mnemonic::Xlatb => {
            op.index = crate::registers::ZERO;
            data::xlat
        }
        Mnemonic::Daa => bcd::decimal::<false>,
        Mnemonic::Das => bcd::decimal::<true>,
        Mnemonic::Aaa => bcd::ascii::<false>,
        Mnemonic::Aas => bcd::ascii::<true>,
        Mnemonic::Aam => bcd::aam,
        Mnemonic::Aad => bcd::aad,
        _ => return None,
    })
}

fn mov(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    let first = size(instruction, 0);
    let kind = |operand| {
        let register = if is_register(instruction, operand) {
            instruction.op_register(operand)
        } else {
            Register::None
        };
        (register.is_segment_register(), register.is_cr(), register.is_dr(), register.is_gpr())
    };
    Some(match (kind(0), kind(1)) {
        ((true, ..), _) => {
            if op.dst == crate::registers::CS {
                system::undefined
            } else {
                far::mov_to_segment
            }
        }
        (_, (true, ..)) if is_memory(instruction, 0) => far::mov_from_segment::<u16>,
        (_, (true, ..)) => sized!(first, far::mov_from_segment),
        ((_, true, ..), _) => crate::control::mov_to_control,
        (_, (_, true, ..)) => crate::control::mov_from_control,
        ((_, _, true, _), _) => crate::control::mov_to_debug,
        (_, (_, _, true, _)) => crate::control::mov_from_debug,
        ((.., true), (.., true)) => sized!(first, data::mov_rr),
        ((.., true), _) if is_memory(instruction, 1) => sized!(first, data::mov_rm),
        ((.., true), _) => sized!(first, data::mov_ri),
        (_, (.., true)) if is_memory(instruction, 0) => sized!(first, data::mov_mr),
        _ if is_memory(instruction, 0) => sized!(first, data::mov_mi),
        // Test registers.
        _ => system::undefined,
    })
}

/// Bytes that the instruction moves the stack pointer by.
fn stack_bytes(instruction: &Instruction) -> u64 {
    u64::from(instruction.stack_pointer_increment().unsigned_abs())
}

fn stack(core: &Core, instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    let bytes = stack_bytes(instruction);
    let is_segment =
        is_register(instruction, 0) && instruction.op_register(0).is_segment_register();
    let is_flat = core.mode == Mode::Bits64 && bytes == 8;
    let handler = match instruction.mnemonic() {
        Mnemonic::Push if is_segment => sized!(bytes, far::push_segment),
        Mnemonic::Pop if is_segment => sized!(bytes, far::pop_segment),
        Mnemonic::Push if is_register(instruction, 0) && is_flat => data::push_r,
        Mnemonic::Pop if is_register(instruction, 0) && is_flat => data::pop_r,
        Mnemonic::Push if is_register(instruction, 0) || is_memory(instruction, 0) => {
            sized!(bytes, data::push)
        }
        Mnemonic::Push if is_flat => data::push_i,
        Mnemonic::Push => sized!(bytes, data::push_imm),
        Mnemonic::Pop => sized!(bytes, data::pop),
        Mnemonic::Pusha => far::pusha::<u16>,
        Mnemonic::Pushad => far::pusha::<u32>,
        Mnemonic::Popa => far::popa::<u16>,
        Mnemonic::Popad => far::popa::<u32>,
        Mnemonic::Enter => {
            op.disp = u64::from(instruction.immediate16());
            op.imm = u64::from(instruction.immediate8_2nd());
            match instruction.code() {
                Code::Enterw_imm16_imm8 => far::enter::<u16>,
                Code::Enterd_imm16_imm8 => far::enter::<u32>,
                _ => far::enter::<u64>,
            }
        }
        Mnemonic::Leave => match instruction.code() {
            Code::Leavew => far::leave::<u16>,
            Code::Leaved => far::leave::<u32>,
            _ => far::leave::<u64>,
        },
        _ => return None,
    };
    op.flags |= STACK;
    Some(handler)
}

/// Width of a far pointer's offset.
fn far_size(instruction: &Instruction) -> usize {
    instruction.memory_size().size().wrapping_sub(2)
}

fn branches(core: &Core, instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    let is_64 = core.mode == Mode::Bits64;
    let near = instruction.op_count() > 0
        && matches!(
            instruction.op_kind(0),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
        );
    if near {
        op.disp = match instruction.op_kind(0) {
            OpKind::NearBranch16 => 0xffff,
            OpKind::NearBranch32 => 0xffff_ffff,
            _ => u64::MAX,
        };
    }
    let is_far_immediate = instruction.op_count() > 0
        && matches!(instruction.op_kind(0), OpKind::FarBranch16 | OpKind::FarBranch32);
    if is_far_immediate {
        op.disp = u64::from(instruction.far_branch_selector());
        op.imm = if instruction.op_kind(0) == OpKind::FarBranch16 {
            u64::from(instruction.far_branch16())
        } else {
            u64::from(instruction.far_branch32())
        };
    }
    let is_far =
        is_far_immediate || instruction.is_jmp_far_indirect() || instruction.is_call_far_indirect();
    if is_far {
        let far = far_size(instruction);
        return Some(match instruction.mnemonic() {
            Mnemonic::Jmp if is_far_immediate => far::jmp_immediate,
            Mnemonic::Jmp => sized!(far, far::jmp_memory),
            _ if is_far_immediate && instruction.op_kind(0) == OpKind::FarBranch16 => {
                far::call_immediate::<u16>
            }
            _ if is_far_immediate => far::call_immediate::<u32>,
            _ => sized!(far, far::call_memory),
        });
    }
    let bytes = stack_bytes(instruction);
    let handler = match instruction.mnemonic() {
        _ if instruction.is_jcc_short_or_near() => {
            conditional!(condition(instruction), branch::jcc)
        }
        Mnemonic::Jmp if near => branch::jmp,
        Mnemonic::Jmp => sized!(size(instruction, 0), branch::jmp_to),
        Mnemonic::Call if near && is_64 && bytes == 8 => branch::call,
        Mnemonic::Call if near => sized!(bytes, branch::call_sized),
        Mnemonic::Call => sized!(size(instruction, 0), branch::call_to),
        Mnemonic::Ret => {
            let bytes = bytes.wrapping_sub(op.imm);
            if is_64 && bytes == 8 { branch::ret } else { sized!(bytes, branch::ret_sized) }
        }
        Mnemonic::Retf => {
            let half = bytes.wrapping_sub(op.imm) >> 1;
            return Some(sized!(half, far::ret));
        }
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne => {
            op.flags |= loop_address(instruction.code());
            match instruction.mnemonic() {
                Mnemonic::Loopne => branch::count::<0>,
                Mnemonic::Loope => branch::count::<1>,
                _ => branch::count::<2>,
            }
        }
        Mnemonic::Jcxz => {
            op.flags |= ADDRESS_16;
            branch::count::<3>
        }
        Mnemonic::Jecxz => {
            op.flags |= ADDRESS_32;
            branch::count::<3>
        }
        Mnemonic::Jrcxz => branch::count::<3>,
        _ => return None,
    };
    op.flags |= BRANCH;
    if matches!(instruction.mnemonic(), Mnemonic::Call | Mnemonic::Ret) {
        op.flags |= STACK;
    }
    Some(handler)
}

/// The width of the counter of a LOOP.
fn loop_address(code: Code) -> u8 {
    match code {
        Code::Loop_rel8_16_CX
        | Code::Loop_rel8_32_CX
        | Code::Loope_rel8_16_CX
        | Code::Loope_rel8_32_CX
        | Code::Loopne_rel8_16_CX
        | Code::Loopne_rel8_32_CX => ADDRESS_16,
        Code::Loop_rel8_16_RCX
        | Code::Loop_rel8_64_RCX
        | Code::Loope_rel8_16_RCX
        | Code::Loope_rel8_64_RCX
        | Code::Loopne_rel8_16_RCX
        | Code::Loopne_rel8_64_RCX => 0,
        _ => ADDRESS_32,
    }
}

fn strings(core: &Core, instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    if !instruction.is_string_instruction() {
        return None;
    }
    op.src = match (instruction.has_rep_prefix(), instruction.has_repne_prefix()) {
        (true, _) => string::WHILE_EQUAL,
        (_, true) => string::WHILE_NOT_EQUAL,
        _ => string::ONCE,
    };
    for operand in 0..instruction.op_count() {
        match instruction.op_kind(operand) {
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => {
                op.flags |= ADDRESS_16
            }
            OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => {
                op.flags |= ADDRESS_32
            }
            _ => {}
        }
    }
    op.segment = SEGMENT.wrapping_add(segment(instruction.memory_segment()));
    debug_assert!(
        FS > SS && core.mode != Mode::Bits64 || op.segment >= SEGMENT,
        "a segment's base is added"
    );
    Some(match instruction.mnemonic() {
        Mnemonic::Movsb => string::movs::<u8>,
        Mnemonic::Movsw => string::movs::<u16>,
        Mnemonic::Movsd => string::movs::<u32>,
        Mnemonic::Movsq => string::movs::<u64>,
        Mnemonic::Stosb => string::stos::<u8>,
        Mnemonic::Stosw => string::stos::<u16>,
        Mnemonic::Stosd => string::stos::<u32>,
        Mnemonic::Stosq => string::stos::<u64>,
        Mnemonic::Lodsb => string::lods::<u8>,
        Mnemonic::Lodsw => string::lods::<u16>,
        Mnemonic::Lodsd => string::lods::<u32>,
        Mnemonic::Lodsq => string::lods::<u64>,
        Mnemonic::Scasb => string::scas::<u8>,
        Mnemonic::Scasw => string::scas::<u16>,
        Mnemonic::Scasd => string::scas::<u32>,
        Mnemonic::Scasq => string::scas::<u64>,
        Mnemonic::Cmpsb => string::cmps::<u8>,
        Mnemonic::Cmpsw => string::cmps::<u16>,
        Mnemonic::Cmpsd => string::cmps::<u32>,
        Mnemonic::Cmpsq => string::cmps::<u64>,
        Mnemonic::Insb => io::ins::<u8>,
        Mnemonic::Insw => io::ins::<u16>,
        Mnemonic::Insd => io::ins::<u32>,
        Mnemonic::Outsb => io::outs::<u8>,
        Mnemonic::Outsw => io::outs::<u16>,
        Mnemonic::Outsd => io::outs::<u32>,
        _ => return None,
    })
}
