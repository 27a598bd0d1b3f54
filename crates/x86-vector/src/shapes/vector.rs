//! Shapes that write a vector register.

use iced_x86::{Instruction, OpKind};

use super::{Execute, Outcome, general_source, load, named, number, outcome, source};
use crate::operands::Operands;
use crate::state::{VectorState, Ymm};

/// `OP xmm, xmm/m`: operand 0 is a source too, and its upper half stays. XMM0 is the implied
/// source.
pub(crate) fn legacy<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 1, &mut memory)?;
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(mxcsr, d, d, b, registers, instruction.immediate8()) };
    outcome(executed, context)
}

/// `OP v, v, v/m` and `OP v, v, v/m, v`: operand 0 is written whole.
pub(crate) fn vex3<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    let a = named(registers, instruction.op1_register());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 2, &mut memory)?;
    let c = named(registers, instruction.op3_register());
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(mxcsr, d, a, b, c, instruction.immediate8()) };
    outcome(executed, context)
}

/// `OP v, v/m`: operand 0 is written whole; `a` and `b` are operand 1.
pub(crate) fn vex2<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 1, &mut memory)?;
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(mxcsr, d, b, b, b, instruction.immediate8()) };
    outcome(executed, context)
}

/// `OP xmm, r/m`, with operand 0 as a source too.
pub(crate) fn from_gpr<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    general_source::<C, SIZE>(instruction, context, 1, &mut memory)?;
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(mxcsr, d, d, &memory, registers, instruction.immediate8()) };
    outcome(executed, context)
}

/// `OP xmm, xmm, r/m`: operand 0 is written whole.
pub(crate) fn vex_from_gpr<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    let a = named(registers, instruction.op1_register());
    general_source::<C, SIZE>(instruction, context, 2, &mut memory)?;
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(mxcsr, d, a, &memory, registers, instruction.immediate8()) };
    outcome(executed, context)
}

/// `OP xmm, imm`: operand 0 is the source too.
pub(crate) fn immediate<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let d = named(registers, instruction.op0_register());
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(mxcsr, d, d, d, d, instruction.immediate8()) };
    outcome(executed, context)
}

/// `OP v, v, imm`: operand 0 is written whole.
pub(crate) fn vex_immediate<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let d = named(registers, instruction.op0_register());
    let a = named(registers, instruction.op1_register());
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(mxcsr, d, a, a, a, instruction.immediate8()) };
    outcome(executed, context)
}

/// `MOVSS/MOVSD xmm, xmm/m`: a register's element is merged; memory clears the rest of the low
/// half.
pub(crate) fn legacy_scalar<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    if instruction.op1_kind() == OpKind::Register {
        return legacy::<C, O, SIZE, ALIGNED>(state, instruction, context);
    }
    let mut memory = Ymm::default();
    load::<C, SIZE, ALIGNED>(instruction, context, 1, &mut memory)?;
    if let Some(register) = state.ymm.get_mut(number(instruction.op0_register())) {
        register.set_low(memory.low());
    }
    Ok(())
}

/// `INSERTPS xmm, xmm/m, imm`: bits 6 and 7 of the immediate operand count for registers only.
pub(crate) fn legacy_insertps<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 1, &mut memory)?;
    let imm = insertps_immediate(instruction, 1);
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(mxcsr, d, d, b, b, imm) };
    outcome(executed, context)
}

/// `VINSERTPS xmm, xmm, xmm/m, imm`: as [`legacy_insertps`].
pub(crate) fn vex_insertps<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    let a = named(registers, instruction.op1_register());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 2, &mut memory)?;
    let imm = insertps_immediate(instruction, 2);
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(mxcsr, d, a, b, b, imm) };
    outcome(executed, context)
}

/// The immediate operand of INSERTPS, by the kind of its source.
fn insertps_immediate(instruction: &Instruction, operand: u32) -> u8 {
    let imm = instruction.immediate8();
    if instruction.op_kind(operand) == OpKind::Register { imm } else { imm & 0x3f }
}
