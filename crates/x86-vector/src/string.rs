//! Shapes of the string comparisons of SSE4.2, and of CRC32.

use iced_x86::{Instruction, OpKind, Register};

use crate::operands::Operands;
use crate::shapes::{Execute, Outcome, STATUS_FLAGS, load, number};
use crate::state::{VectorState, Ymm};

/// Compares strings; an index goes to ECX, or a mask to XMM0. `SIZE` is 4 or 8, the size of the
/// lengths in RAX and RDX. Memory need not be aligned.
fn compare<C: Operands, O: Execute, const SIZE: usize>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Result<Ymm, C::Fault> {
    let mut b = Ymm::default();
    if instruction.op1_kind() == OpKind::Register {
        b = state.ymm.get(number(instruction.op1_register())).copied().unwrap_or_default();
    } else {
        load::<C, 16, false>(instruction, context, 1, &mut b)?;
    }
    let (rax, rdx) = if SIZE == 8 { (Register::RAX, Register::RDX) } else { (Register::EAX, Register::EDX) };
    let mut lengths = Ymm::low64(context.gpr(rax));
    if let Some(second) = lengths.0.as_chunks_mut::<8>().0.get_mut(1) {
        *second = context.gpr(rdx).to_le_bytes();
    }
    let a = state.ymm.get(number(instruction.op0_register())).copied().unwrap_or_default();
    let mut result = Ymm::default();
    // SAFETY: all pointers are made of references, and `lookup` asks if the host has the
    // instruction.
    unsafe { O::execute(&mut state.mxcsr, &raw mut result, &a, &b, &lengths, instruction.immediate8()) };
    let flags = result.0.last_chunk().map_or(0, |flags| u64::from_le_bytes(*flags));
    context.set_flags(STATUS_FLAGS, flags >> 8 & (STATUS_FLAGS & 0xff) | (flags & 1) << 11);
    Ok(result)
}

/// PCMPESTRI and PCMPISTRI.
pub(crate) fn string_index<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let result = compare::<C, O, SIZE>(state, instruction, context)?;
    let (_, index) = (result.low(), result.high());
    let index = index.first_chunk().map_or(0, |index| u64::from_le_bytes(*index));
    context.set_gpr(if SIZE == 8 { Register::RCX } else { Register::ECX }, index);
    Ok(())
}

/// PCMPESTRM and PCMPISTRM.
pub(crate) fn string_mask<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let result = compare::<C, O, SIZE>(state, instruction, context)?;
    if let Some(register) = state.ymm.first_mut() {
        register.set_low(result.low());
    }
    Ok(())
}

/// VPCMPESTRM and VPCMPISTRM: the upper half of YMM0 is cleared.
pub(crate) fn vex_string_mask<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let result = compare::<C, O, SIZE>(state, instruction, context)?;
    if let Some(register) = state.ymm.first_mut() {
        *register = Ymm::from_lanes(result.low(), [0; 16]);
    }
    Ok(())
}

/// `CRC32 r, r/m`.
pub(crate) fn crc<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let mut b = Ymm::default();
    if instruction.op1_kind() == OpKind::Register {
        b = Ymm::low64(context.gpr(instruction.op1_register()));
    } else {
        load::<C, SIZE, false>(instruction, context, 1, &mut b)?;
    }
    let a = Ymm::low64(context.gpr(instruction.op0_register()));
    let mut result = Ymm::default();
    // SAFETY: all pointers are made of references, and `lookup` asks if the host has the
    // instruction.
    unsafe { O::execute(&mut state.mxcsr, &raw mut result, &a, &b, &b, 0) };
    context.set_gpr(instruction.op0_register(), result.as_u64());
    Ok(())
}
