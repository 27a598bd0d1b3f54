//! Control and status words, FNCLEX, FNINIT, FWAIT.

use iced_x86::{Code, Instruction, Register};

use crate::Handler;
use crate::image::control_word;
use crate::mmx::check_pending;
use crate::operands::Operands;
use crate::shapes::Outcome;
use crate::state::{VectorState, X87};

/// FWAIT, and instructions of older processors that do nothing more.
fn wait<C: Operands>(state: &mut VectorState, _: &Instruction, context: &mut C) -> Outcome<C> {
    check_pending(state, context)
}

/// Instructions of older processors that do nothing.
fn nothing<C: Operands>(_: &mut VectorState, _: &Instruction, _: &mut C) -> Outcome<C> {
    Ok(())
}

/// Reports a pending exception if `WAIT` is true: the instruction begins with FWAIT.
pub(super) fn wait_if<C: Operands, const WAIT: bool>(state: &VectorState, context: &mut C) -> Outcome<C> {
    if WAIT { check_pending(state, context) } else { Ok(()) }
}

/// FNCLEX and FCLEX.
fn clear<C: Operands, const WAIT: bool>(
    state: &mut VectorState,
    _: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    wait_if::<C, WAIT>(state, context)?;
    state.x87.status &= 0x7f00;
    Ok(())
}

/// FNINIT and FINIT. The contents of the registers stay.
fn init<C: Operands, const WAIT: bool>(
    state: &mut VectorState,
    _: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    wait_if::<C, WAIT>(state, context)?;
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

/// FNSTCW and FSTCW.
fn store_control<C: Operands, const WAIT: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    wait_if::<C, WAIT>(state, context)?;
    context.store(instruction, 0, &state.x87.control.to_le_bytes())
}

/// FNSTSW and FSTSW to memory.
fn store_status<C: Operands, const WAIT: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    wait_if::<C, WAIT>(state, context)?;
    context.store(instruction, 0, &state.x87.status.to_le_bytes())
}

/// FNSTSW and FSTSW to AX.
fn status_to_ax<C: Operands, const WAIT: bool>(
    state: &mut VectorState,
    _: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    wait_if::<C, WAIT>(state, context)?;
    context.set_gpr(Register::AX, u64::from(state.x87.status));
    Ok(())
}

/// Returns the handler of the instruction.
pub(super) fn handler<C: Operands>(code: Code) -> Option<Handler<C>> {
    Some(match code {
        Code::Wait | Code::Feni | Code::Fdisi | Code::Fsetpm => wait,
        Code::Fneni | Code::Fndisi | Code::Fnsetpm => nothing,
        Code::Fnclex => clear::<C, false>,
        Code::Fclex => clear::<C, true>,
        Code::Fninit => init::<C, false>,
        Code::Finit => init::<C, true>,
        Code::Fldcw_m2byte => load_control,
        Code::Fnstcw_m2byte => store_control::<C, false>,
        Code::Fstcw_m2byte => store_control::<C, true>,
        Code::Fnstsw_m2byte => store_status::<C, false>,
        Code::Fstsw_m2byte => store_status::<C, true>,
        Code::Fnstsw_AX => status_to_ax::<C, false>,
        Code::Fstsw_AX => status_to_ax::<C, true>,
        _ => return None,
    })
}
