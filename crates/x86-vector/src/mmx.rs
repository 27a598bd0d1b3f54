//! Shapes of instructions on MMX registers, which are the low 64 bits of the x87 registers.

use iced_x86::{Instruction, OpKind, Register};

use crate::operands::{Operands, VectorException};
use crate::shapes::{Execute, Outcome, load, number};
use crate::state::{VectorState, Ymm};

/// Number of the MMX register.
pub(crate) fn mmx_number(register: Register) -> usize {
    (register as usize).wrapping_sub(Register::MM0 as usize) & 7
}

/// Reports an x87 exception that is pending, as every MMX instruction does.
pub(crate) fn check_pending<C: Operands>(state: &VectorState, context: &mut C) -> Outcome<C> {
    if state.x87.pending() { Err(context.exception(VectorException::X87FloatingPoint)) } else { Ok(()) }
}

/// Makes all registers valid, and the first one the top of the stack, as every MMX instruction but
/// EMMS does.
pub(crate) fn enter_mmx(state: &mut VectorState) {
    state.x87.status &= !0x3800;
    state.x87.tags = 0xff;
}

/// Value of MMX, XMM or general register `operand`, or of `SIZE` bytes of memory.
fn source<C: Operands, const SIZE: usize, const ALIGNED: bool>(
    state: &VectorState,
    instruction: &Instruction,
    context: &mut C,
    operand: u32,
) -> Result<Ymm, C::Fault> {
    let mut value = Ymm::default();
    if instruction.op_kind(operand) != OpKind::Register {
        load::<C, SIZE, ALIGNED>(instruction, context, operand, &mut value)?;
        return Ok(value);
    }
    let register = instruction.op_register(operand);
    if register.is_mm() {
        value = Ymm::low64(state.x87.mm(mmx_number(register)));
    } else if register.is_xmm() {
        value = state.ymm.get(number(register)).copied().unwrap_or_default();
    } else {
        value = Ymm::low64(context.gpr(register));
    }
    Ok(value)
}

/// Executes an operation. The registers are in use for MMX even if it raises a floating-point
/// exception.
fn execute<C: Operands, O: Execute>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
    result: &mut Ymm,
    [a, b]: [&Ymm; 2],
) -> Outcome<C> {
    // SAFETY: all pointers are made of references, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(&mut state.mxcsr, result, a, b, b, instruction.immediate8()) };
    if executed {
        return Ok(());
    }
    if instruction.op1_kind() == OpKind::Register || instruction.op0_register().is_mm() {
        enter_mmx(state);
    }
    Err(context.exception(VectorException::SimdFloatingPoint))
}

/// `OP mm, mm/xmm/r/m`: operand 0 is a source too.
pub(crate) fn mmx<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    check_pending(state, context)?;
    let d = mmx_number(instruction.op0_register());
    let a = Ymm::low64(state.x87.mm(d));
    let b = source::<C, SIZE, ALIGNED>(state, instruction, context, 1)?;
    let mut result = Ymm::default();
    execute::<C, O>(state, instruction, context, &mut result, [&a, &b])?;
    enter_mmx(state);
    state.x87.set_mm(d, result.as_u64());
    Ok(())
}

/// `OP mm, imm`: operand 0 is the source too.
pub(crate) fn mmx_immediate<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    check_pending(state, context)?;
    let d = mmx_number(instruction.op0_register());
    let a = Ymm::low64(state.x87.mm(d));
    let mut result = Ymm::default();
    execute::<C, O>(state, instruction, context, &mut result, [&a, &a])?;
    enter_mmx(state);
    state.x87.set_mm(d, result.as_u64());
    Ok(())
}

/// `OP r, mm`: a general register is written.
pub(crate) fn mmx_to_general<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    check_pending(state, context)?;
    let b = source::<C, SIZE, ALIGNED>(state, instruction, context, 1)?;
    let mut result = Ymm::default();
    execute::<C, O>(state, instruction, context, &mut result, [&b, &b])?;
    enter_mmx(state);
    context.set_gpr(instruction.op0_register(), result.as_u64());
    Ok(())
}

/// `OP mm/r/m, mm`: `SIZE` bytes are moved.
pub(crate) fn mmx_store<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    check_pending(state, context)?;
    let b = source::<C, SIZE, ALIGNED>(state, instruction, context, 1)?;
    let mut result = Ymm::default();
    execute::<C, O>(state, instruction, context, &mut result, [&b, &b])?;
    if instruction.op0_kind() != OpKind::Register {
        crate::shapes::store::<C, SIZE, ALIGNED>(instruction, context, &result)?;
        enter_mmx(state);
        return Ok(());
    }
    enter_mmx(state);
    let register = instruction.op0_register();
    if register.is_mm() {
        state.x87.set_mm(mmx_number(register), result.as_u64());
    } else {
        context.set_gpr(register, result.as_u64());
    }
    Ok(())
}

/// `OP xmm, mm/m`: operand 0 is a source too, and its upper half stays. Memory leaves the x87
/// registers as they are.
pub(crate) fn mmx_to_xmm<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    if instruction.op1_kind() == OpKind::Register {
        check_pending(state, context)?;
    }
    let b = source::<C, SIZE, ALIGNED>(state, instruction, context, 1)?;
    let index = number(instruction.op0_register());
    let a = state.ymm.get(index).copied().unwrap_or_default();
    let mut result = a;
    execute::<C, O>(state, instruction, context, &mut result, [&a, &b])?;
    if instruction.op1_kind() == OpKind::Register {
        enter_mmx(state);
    }
    if let Some(register) = state.ymm.get_mut(index) {
        *register = result;
    }
    Ok(())
}

/// EMMS: empties the x87 registers.
pub(crate) fn emms<C: Operands>(state: &mut VectorState, _: &Instruction, context: &mut C) -> Outcome<C> {
    check_pending(state, context)?;
    state.x87.tags = 0;
    state.x87.status &= !0x3800;
    Ok(())
}
