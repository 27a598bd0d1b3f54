//! Control and status words, FNCLEX, FNINIT, FWAIT.

use iced_x86::{Code, Register};

use crate::Handler;
use crate::image::control_word;
use crate::mmx::check_pending;
use crate::operands::Operands;
use crate::shapes::Outcome;
use crate::state::X87;

/// FWAIT. What begins with it, as FSTCW, is decoded as two instructions.
fn wait<C: Operands>(context: &mut C, _: &C::Op) -> Outcome<C> {
    check_pending(context)
}

/// Instructions of older processors that do nothing.
fn nothing<C: Operands>(_: &mut C, _: &C::Op) -> Outcome<C> {
    Ok(())
}

/// FNCLEX.
fn clear<C: Operands>(context: &mut C, _: &C::Op) -> Outcome<C> {
    let x87 = &mut context.vector_mut().x87;
    x87.collect();
    x87.status &= 0x7f00;
    Ok(())
}

/// FNINIT. The contents of the registers stay.
fn init<C: Operands>(context: &mut C, _: &C::Op) -> Outcome<C> {
    initialize(&mut context.vector_mut().x87);
    Ok(())
}

/// FNINIT: the stack's registers keep what they have.
pub(super) fn initialize(x87: &mut X87) {
    *x87 = X87 { registers: x87.registers, ..X87::default() };
}

/// FLDCW.
fn load_control<C: Operands>(context: &mut C, op: &C::Op) -> Outcome<C> {
    check_pending(context)?;
    let mut bytes = [0; 2];
    context.load(op, &mut bytes)?;
    let x87 = &mut context.vector_mut().x87;
    x87.collect();
    x87.control = control_word(u16::from_le_bytes(bytes));
    x87.update_summary();
    Ok(())
}

/// FNSTCW.
fn store_control<C: Operands>(context: &mut C, op: &C::Op) -> Outcome<C> {
    let control = context.vector().x87.control;
    context.store(op, &control.to_le_bytes())
}

/// FNSTSW to memory.
fn store_status<C: Operands>(context: &mut C, op: &C::Op) -> Outcome<C> {
    context.vector_mut().x87.collect();
    let status = context.vector().x87.status;
    context.store(op, &status.to_le_bytes())
}

/// FNSTSW to AX.
fn status_to_ax<C: Operands>(context: &mut C, _: &C::Op) -> Outcome<C> {
    context.vector_mut().x87.collect();
    let status = context.vector().x87.status;
    context.set_gpr(Register::AX, u64::from(status));
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
