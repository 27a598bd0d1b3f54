//! Shapes that write a general register or flags.

use iced_x86::{Instruction, OpKind};

use super::{Execute, Outcome, STATUS_FLAGS, named, outcome, source, store};
use crate::operands::Operands;
use crate::state::{VectorState, Ymm};

/// `OP r, v/m`: a general register is written.
pub(crate) fn to_gpr<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let (mut memory, mut result) = (Ymm::default(), Ymm::default());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 1, &mut memory)?;
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(mxcsr, &raw mut result, b, b, b, instruction.immediate8()) };
    outcome(executed, context)?;
    context.set_gpr(instruction.op0_register(), result.as_u64());
    Ok(())
}

/// `OP v, v/m`: the status flags are written.
pub(crate) fn to_flags<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let (mut memory, mut result) = (Ymm::default(), Ymm::default());
    let a = named(registers, instruction.op0_register());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 1, &mut memory)?;
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(mxcsr, &raw mut result, a, b, b, instruction.immediate8()) };
    outcome(executed, context)?;
    // LAHF leaves out OF, which all of these clear, and sets bit 1.
    context.set_flags(STATUS_FLAGS, result.as_u64() & STATUS_FLAGS);
    Ok(())
}

/// `OP r/m, xmm`: `SIZE` bytes of the result go to memory, or all to a general register.
pub(crate) fn to_general<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut result = Ymm::default();
    let b = named(registers, instruction.op1_register());
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(mxcsr, &raw mut result, b, b, b, instruction.immediate8()) };
    outcome(executed, context)?;
    if instruction.op0_kind() == OpKind::Register {
        context.set_gpr(instruction.op0_register(), result.as_u64());
        return Ok(());
    }
    store::<C, SIZE, ALIGNED>(instruction, context, &result)
}
