//! Shapes that write a vector register or memory.

use iced_x86::{Instruction, OpKind};

use super::{Execute, Outcome, named, number, outcome, store};
use crate::operands::Operands;
use crate::state::{VectorState, Ymm};

/// `OP v/m, v`: `a` and `b` are operand 1. `SIZE` bytes go to memory; a register is written whole.
pub(crate) fn vex_to_memory<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let registers = state.ymm.as_mut_ptr();
    let (mut result, mut mxcsr) = (Ymm::default(), state.mxcsr);
    let b = named(registers, instruction.op1_register());
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(&mut mxcsr, &raw mut result, b, b, b, instruction.immediate8()) };
    if instruction.op0_kind() != OpKind::Register {
        if executed {
            store::<C, SIZE, ALIGNED>(instruction, context, &result)?;
        } else {
            context.check_store(instruction, 0, SIZE)?;
        }
    } else if executed && let Some(register) = state.ymm.get_mut(number(instruction.op0_register())) {
        *register = result;
    }
    state.mxcsr = mxcsr;
    outcome(executed, context)
}

/// `OP xmm/m, xmm`: `SIZE` bytes go to memory; the upper half of a register stays, and it is a
/// source too.
pub(crate) fn to_memory<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut result = Ymm::default();
    let b = named(registers, instruction.op1_register());
    let is_register = instruction.op0_kind() == OpKind::Register;
    let d = if is_register { named(registers, instruction.op0_register()) } else { &raw mut result };
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(mxcsr, d, d, b, b, instruction.immediate8()) };
    outcome(executed, context)?;
    if is_register { Ok(()) } else { store::<C, SIZE, ALIGNED>(instruction, context, &result) }
}
