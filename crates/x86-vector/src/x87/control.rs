//! Control and status words, FNCLEX, FNINIT, FWAIT.

use iced_x86::{Code, Instruction, Register};

use crate::Handler;
use crate::image::control_word;
use crate::mmx::check_pending;
use crate::operands::Operands;
use crate::shapes::Outcome;
use crate::state::{VectorState, X87};

/// FWAIT. What begins with it, as FSTCW, is decoded as two instructions.
fn wait<C: Operands>(state: &mut VectorState, _: &Instruction, context: &mut C) -> Outcome<C> {
    check_pending(state, context)
}

/// Instructions of older processors that do nothing.
fn nothing<C: Operands>(_: &mut VectorState, _: &Instruction, _: &mut C) -> Outcome<C> {
    Ok(())
}

/// FNCLEX.
fn clear<C: Operands>(state: &mut VectorState, _: &Instruction, _: &mut C) -> Outcome<C> {
    state.x87.status &= 0x7f00;
    Ok(())
}

/// FNINIT. The contents of the registers stay.
fn init<C: Operands>(state: &mut VectorState, _: &Instruction, _: &mut C) -> Outcome<C> {
    initialize(&mut state.x87);
    Ok(())
}

/// FNINIT: the stack's registers keep what they have.
pub(super) fn initialize(x87: &mut X87) {
    *x87 = X87 { registers: x87.registers, ..X87::default() };
}

/// FLDCW.
fn load_control<C: Operands>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    check_pending(state, context)?;
    let mut bytes = [0; 2];
    context.load(instruction, 0, &mut bytes)?;
    state.x87.control = control_word(u16::from_le_bytes(bytes));
    state.x87.update_summary();
    Ok(())
}

/// FNSTCW.
fn store_control<C: Operands>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    context.store(instruction, 0, &state.x87.control.to_le_bytes())
}

/// FNSTSW to memory.
fn store_status<C: Operands>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    context.store(instruction, 0, &state.x87.status.to_le_bytes())
}

/// FNSTSW to AX.
fn status_to_ax<C: Operands>(state: &mut VectorState, _: &Instruction, context: &mut C) -> Outcome<C> {
    context.set_gpr(Register::AX, u64::from(state.x87.status));
    Ok(())
}

/// Returns the handler of the instruction.
pub(super) fn handler<C: Operands>(code: Code) -> Option<Handler<C>> {
    Some(match code {
        Code::Wait => wait,
        Code::Fneni | Code::Fndisi | Code::Fnsetpm => nothing,
        Code::Fnclex => clear,
        Code::Fninit => init,
        Code::Fldcw_m2byte => load_control,
        Code::Fnstcw_m2byte => store_control,
        Code::Fnstsw_m2byte => store_status,
        Code::Fnstsw_AX => status_to_ax,
        _ => return None,
    })
}
