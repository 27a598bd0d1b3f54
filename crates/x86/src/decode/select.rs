//! Choice of the function that executes an instruction.

use iced_x86::{Instruction, Mnemonic};

use super::forms::{is_memory, is_register, size, sized};
use super::{operands, select_data, select_system};
use crate::core::Core;
use crate::op::{Handler, LOCK, Op};
use crate::ops::{alu, bits, data, muldiv, shift, system};

/// Decodes an instruction of these bytes.
pub(super) fn op(core: &Core, instruction: &Instruction, bytes: &[u8]) -> Op {
    let mut op = Op::new(system::unimplemented);
    operands::fill(core, instruction, &mut op);
    let handler = arithmetic(instruction, &mut op)
        .or_else(|| select_data::handler(core, instruction, &mut op))
        .or_else(|| select_system::handler(core, instruction, &mut op))
        .or_else(|| crate::vector::handler(core, instruction, bytes, &mut op));
    match handler {
        Some(handler) => op.run = handler,
        None => op.code = Some(instruction.code()),
    }
    op
}

/// The forms of an operation of two operands.
fn alu<O: alu::Alu + 'static>(instruction: &Instruction) -> Handler {
    let size = size(instruction, 0);
    match (is_memory(instruction, 0), is_memory(instruction, 1), is_register(instruction, 1)) {
        (true, _, true) => sized!(size, alu::mr, O),
        (true, ..) => sized!(size, alu::mi, O),
        (_, true, _) => sized!(size, alu::rm, O),
        (_, _, true) => sized!(size, alu::rr, O),
        _ => sized!(size, alu::ri, O),
    }
}

fn shift<S: shift::Shift + 'static>(instruction: &Instruction) -> Handler {
    let size = size(instruction, 0);
    if is_register(instruction, 1) {
        sized!(size, shift::by_cl, S)
    } else {
        sized!(size, shift::by_imm, S)
    }
}

/// Arithmetic, logic, bits.
fn arithmetic(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    let first = size(instruction, 0);
    let by_register = is_register(instruction, 1);
    Some(match instruction.mnemonic() {
        Mnemonic::Add => alu::<alu::Add>(instruction),
        Mnemonic::Or => alu::<alu::Or>(instruction),
        Mnemonic::Adc => alu::<alu::Adc>(instruction),
        Mnemonic::Sbb => alu::<alu::Sbb>(instruction),
        Mnemonic::And => alu::<alu::And>(instruction),
        Mnemonic::Sub => alu::<alu::Sub>(instruction),
        Mnemonic::Xor => alu::<alu::Xor>(instruction),
        Mnemonic::Cmp => alu::<alu::Cmp>(instruction),
        Mnemonic::Test => alu::<alu::Test>(instruction),
        Mnemonic::Inc => sized!(first, alu::inc),
        Mnemonic::Dec => sized!(first, alu::dec),
        Mnemonic::Neg => sized!(first, alu::neg),
        Mnemonic::Not => sized!(first, alu::not),
        Mnemonic::Shl | Mnemonic::Sal => shift::<shift::Shl>(instruction),
        Mnemonic::Shr => shift::<shift::Shr>(instruction),
        Mnemonic::Sar => shift::<shift::Sar>(instruction),
        Mnemonic::Rol => shift::<shift::Rol>(instruction),
        Mnemonic::Ror => shift::<shift::Ror>(instruction),
        Mnemonic::Rcl if by_register => sized!(first, shift::carry_cl; true),
        Mnemonic::Rcl => sized!(first, shift::carry_imm; true),
        Mnemonic::Rcr if by_register => sized!(first, shift::carry_cl; false),
        Mnemonic::Rcr => sized!(first, shift::carry_imm; false),
        Mnemonic::Shld if is_register(instruction, 2) => sized!(first, shift::double_cl; true),
        Mnemonic::Shld => sized!(first, shift::double_imm; true),
        Mnemonic::Shrd if is_register(instruction, 2) => sized!(first, shift::double_cl; false),
        Mnemonic::Shrd => sized!(first, shift::double_imm; false),
        Mnemonic::Mul => sized!(first, muldiv::mul),
        Mnemonic::Imul if instruction.op_count() == 1 => sized!(first, muldiv::imul),
        Mnemonic::Imul if instruction.op_count() == 2 => sized!(first, muldiv::imul_rm),
        Mnemonic::Imul => sized!(first, muldiv::imul_rmi),
        Mnemonic::Div => sized!(first, muldiv::div),
        Mnemonic::Idiv => sized!(first, muldiv::idiv),
        Mnemonic::Mulx => sized!(first, muldiv::mulx),
        Mnemonic::Bt if by_register => sized!(first, bits::test_reg; 0),
        Mnemonic::Bts if by_register => sized!(first, bits::test_reg; 1),
        Mnemonic::Btr if by_register => sized!(first, bits::test_reg; 2),
        Mnemonic::Btc if by_register => sized!(first, bits::test_reg; 3),
        Mnemonic::Bt => sized!(first, bits::test_imm; 0),
        Mnemonic::Bts => sized!(first, bits::test_imm; 1),
        Mnemonic::Btr => sized!(first, bits::test_imm; 2),
        Mnemonic::Btc => sized!(first, bits::test_imm; 3),
        Mnemonic::Bsf => sized!(first, bits::scan; false),
        Mnemonic::Bsr => sized!(first, bits::scan; true),
        Mnemonic::Tzcnt => sized!(first, bits::zeros; false),
        Mnemonic::Lzcnt => sized!(first, bits::zeros; true),
        Mnemonic::Popcnt => sized!(first, bits::popcnt),
        Mnemonic::Andn => sized!(first, bits::andn),
        Mnemonic::Blsi => sized!(first, bits::lowest; 0),
        Mnemonic::Blsmsk => sized!(first, bits::lowest; 1),
        Mnemonic::Blsr => sized!(first, bits::lowest; 2),
        Mnemonic::Bextr if is_register(instruction, 2) => sized!(first, bits::bextr),
        Mnemonic::Bzhi => sized!(first, bits::bzhi),
        Mnemonic::Pdep => sized!(first, bits::scatter; false),
        Mnemonic::Pext => sized!(first, bits::scatter; true),
        Mnemonic::Rorx => sized!(first, bits::rorx),
        Mnemonic::Shlx => sized!(first, bits::shift; 0),
        Mnemonic::Shrx => sized!(first, bits::shift; 1),
        Mnemonic::Sarx => sized!(first, bits::shift; 2),
        Mnemonic::Adcx => sized!(first, alu::adx; false),
        Mnemonic::Adox => sized!(first, alu::adx; true),
        Mnemonic::Crc32 => {
            let source = size(instruction, 1);
            if first == 8 {
                sized!(source, bits::crc32, u64)
            } else {
                sized!(source, bits::crc32, u32)
            }
        }
        Mnemonic::Rdrand | Mnemonic::Rdseed => sized!(first, bits::random),
        Mnemonic::Rdpid => bits::rdpid,
        Mnemonic::Bound => sized!(first, bits::bound),
        Mnemonic::Xadd => sized!(first, data::xadd),
        Mnemonic::Cmpxchg => sized!(first, data::cmpxchg),
        Mnemonic::Cmpxchg8b => data::cmpxchg8b,
        Mnemonic::Cmpxchg16b => data::cmpxchg16b,
        Mnemonic::Xchg => {
            op.flags |= LOCK;
            sized!(first, data::xchg)
        }
        _ => return None,
    })
}
