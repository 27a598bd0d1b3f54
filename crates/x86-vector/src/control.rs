//! MXCSR, the upper halves of the YMM registers, EMMS and MOVNTI.

use iced_x86::{Code, CodeSize, Instruction};

use crate::Handler;
use crate::mmx::emms;
use crate::operands::{Operands, VectorException};
use crate::shapes::Outcome;
use crate::state::{MXCSR_MASK, VectorState, Ymm};

/// LDMXCSR and VLDMXCSR.
fn ldmxcsr<C: Operands>(state: &mut VectorState, instruction: &Instruction, context: &mut C) -> Outcome<C> {
    let mut bytes = [0; 4];
    context.load(instruction, 0, &mut bytes)?;
    let value = u32::from_le_bytes(bytes);
    if value & !MXCSR_MASK != 0 {
        return Err(context.exception(VectorException::GeneralProtection));
    }
    state.mxcsr = value;
    Ok(())
}

/// STMXCSR and VSTMXCSR.
fn stmxcsr<C: Operands>(state: &mut VectorState, instruction: &Instruction, context: &mut C) -> Outcome<C> {
    context.store(instruction, 0, &state.mxcsr.to_le_bytes())
}

/// Number of vector registers in the mode of the instruction.
pub(crate) fn registers(instruction: &Instruction) -> usize {
    if instruction.code_size() == CodeSize::Code64 { 16 } else { 8 }
}

/// VZEROUPPER.
fn vzeroupper<C: Operands>(state: &mut VectorState, instruction: &Instruction, _: &mut C) -> Outcome<C> {
    for register in state.ymm.iter_mut().take(registers(instruction)) {
        *register = Ymm::from_lanes(register.low(), [0; 16]);
    }
    Ok(())
}

/// VZEROALL.
fn vzeroall<C: Operands>(state: &mut VectorState, instruction: &Instruction, _: &mut C) -> Outcome<C> {
    for register in state.ymm.iter_mut().take(registers(instruction)) {
        *register = Ymm::default();
    }
    Ok(())
}

/// MOVNTI of `SIZE` bytes.
fn movnti<C: Operands, const SIZE: usize>(
    _: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let value = context.gpr(instruction.op1_register()).to_le_bytes();
    context.store(instruction, 0, value.get(..SIZE).unwrap_or_default())
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
