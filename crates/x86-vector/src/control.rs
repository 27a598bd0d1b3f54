//! MXCSR, the upper halves of the YMM registers, EMMS and MOVNTI.

use iced_x86::Code;

use crate::Handler;
use crate::mmx::emms;
use crate::operands::{Fields, Operands, VectorException};
use crate::shapes::Outcome;
use crate::state::{MXCSR_MASK, Ymm};

/// LDMXCSR and VLDMXCSR.
fn ldmxcsr<C: Operands>(context: &mut C, op: &C::Op) -> Outcome<C> {
    let mut bytes = [0; 4];
    context.load(op, &mut bytes)?;
    let value = u32::from_le_bytes(bytes);
    if value & !MXCSR_MASK != 0 {
        return Err(context.exception(VectorException::GeneralProtection));
    }
    context.vector_mut().set_mxcsr(value);
    Ok(())
}

/// STMXCSR and VSTMXCSR.
fn stmxcsr<C: Operands>(context: &mut C, op: &C::Op) -> Outcome<C> {
    context.vector_mut().collect();
    let value = context.vector().mxcsr.to_le_bytes();
    context.store(op, &value)
}

/// Number of vector registers in the mode of the instruction.
pub(crate) fn registers(fields: &Fields) -> usize {
    if fields.is_64 { 16 } else { 8 }
}

/// VZEROUPPER.
fn vzeroupper<C: Operands>(context: &mut C, op: &C::Op) -> Outcome<C> {
    for register in context.vector_mut().ymm.iter_mut().take(registers(op.as_ref())) {
        *register = Ymm::from_lanes(register.low(), [0; 16]);
    }
    Ok(())
}

/// VZEROALL.
fn vzeroall<C: Operands>(context: &mut C, op: &C::Op) -> Outcome<C> {
    for register in context.vector_mut().ymm.iter_mut().take(registers(op.as_ref())) {
        *register = Ymm::default();
    }
    Ok(())
}

/// MOVNTI of `SIZE` bytes.
fn movnti<C: Operands, const SIZE: usize>(context: &mut C, op: &C::Op) -> Outcome<C> {
    let value = context.gpr(op.as_ref().register(1)).to_le_bytes();
    context.store(op, value.get(..SIZE).unwrap_or_default())
}

/// Returns the handler of the instruction.
pub(crate) fn handler<C: Operands>(code: Code) -> Option<Handler<C>> {
    Some(match code {
        Code::Ldmxcsr_m32 | Code::VEX_Vldmxcsr_m32 => ldmxcsr,
        Code::Stmxcsr_m32 | Code::VEX_Vstmxcsr_m32 => stmxcsr,
        Code::VEX_Vzeroupper => vzeroupper,
        Code::VEX_Vzeroall => vzeroall,
        Code::Emms => emms,
        Code::Movnti_m32_r32 => movnti::<C, 4>,
        Code::Movnti_m64_r64 => movnti::<C, 8>,
        _ => return None,
    })
}
