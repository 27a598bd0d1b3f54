//! Instructions that access chosen elements of memory.

use iced_x86::{Code, Instruction};

use crate::Handler;
use crate::mmx::{check_pending, enter_mmx, mmx_number};
use crate::operands::Operands;
use crate::shapes::{Outcome, number};
use crate::state::{VectorState, Ymm};

/// The vector register of operand `operand`.
fn register(state: &VectorState, instruction: &Instruction, operand: u32) -> Ymm {
    state.ymm.get(number(instruction.op_register(operand))).copied().unwrap_or_default()
}

/// Elements of `N` bytes of the low `BYTES`, whose sign bit is set in `mask`: their index, and
/// their offset.
fn chosen<const N: usize>(mask: &[u8]) -> impl DoubleEndedIterator<Item = (usize, u64)> {
    let signs = mask.as_chunks::<N>().0.iter().enumerate();
    let set = signs.filter(|(_, element)| element.last().is_some_and(|byte| byte & 0x80 != 0));
    set.map(|(index, _)| (index, (index as u64).wrapping_mul(N as u64)))
}

/// VMASKMOVPS, VMASKMOVPD and VPMASKMOV from memory: elements of `N` bytes in a register of
/// `BYTES`.
fn masked_load<C: Operands, const N: usize, const BYTES: usize>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let mask = register(state, instruction, 1);
    let mut result = Ymm::default();
    let elements = result.0.as_chunks_mut::<N>().0;
    for (index, offset) in chosen::<N>(mask.0.get(..BYTES).unwrap_or_default()) {
        if let Some(element) = elements.get_mut(index) {
            context.load_at(instruction, 2, offset, element)?;
        }
    }
    if let Some(register) = state.ymm.get_mut(number(instruction.op0_register())) {
        *register = result;
    }
    Ok(())
}

/// VMASKMOVPS, VMASKMOVPD and VPMASKMOV to memory. The last element is written first, so that
/// nothing is if the second of two pages faults; elements after one that faults may have been
/// written.
fn masked_store<C: Operands, const N: usize, const BYTES: usize>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (mask, source) = (register(state, instruction, 1), register(state, instruction, 2));
    let elements = source.0.as_chunks::<N>().0;
    for (index, offset) in chosen::<N>(mask.0.get(..BYTES).unwrap_or_default()).rev() {
        if let Some(element) = elements.get(index) {
            context.store_at(instruction, 0, offset, element)?;
        }
    }
    Ok(())
}

/// Stores the bytes of `source` whose sign bit is set in `mask`.
fn store_bytes<C: Operands>(
    instruction: &Instruction,
    context: &mut C,
    source: &[u8],
    mask: &[u8],
) -> Outcome<C> {
    for (index, offset) in chosen::<1>(mask).rev() {
        if let Some(byte) = source.get(index) {
            context.store_at(instruction, 0, offset, &[*byte])?;
        }
    }
    Ok(())
}

/// MASKMOVDQU and VMASKMOVDQU. Bytes are written as by [`masked_store`].
fn maskmovdqu<C: Operands>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (source, mask) = (register(state, instruction, 1), register(state, instruction, 2));
    store_bytes(instruction, context, &source.low(), &mask.low())
}

/// MASKMOVQ. Bytes are written as by [`masked_store`].
fn maskmovq<C: Operands>(state: &mut VectorState, instruction: &Instruction, context: &mut C) -> Outcome<C> {
    check_pending(state, context)?;
    let source = state.x87.mm(mmx_number(instruction.op1_register())).to_le_bytes();
    let mask = state.x87.mm(mmx_number(instruction.op2_register())).to_le_bytes();
    enter_mmx(state);
    store_bytes(instruction, context, &source, &mask)
}

/// Gathers: `COUNT` elements of `N` bytes, by indices of `I` bytes. If one faults, those before it
/// are done, and their masks cleared.
fn gather<C: Operands, const I: usize, const N: usize, const COUNT: usize>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (d, m) = (number(instruction.op0_register()), number(instruction.op2_register()));
    let indices = state.ymm.get(number(instruction.memory_index())).copied().unwrap_or_default();
    for position in 0..COUNT {
        let masks = register(state, instruction, 2);
        let mask = masks.0.as_chunks::<N>().0.get(position).copied().unwrap_or([0; N]);
        let mut bytes = [0; N];
        if mask.last().is_some_and(|byte| byte & 0x80 != 0) {
            let index = indices.0.as_chunks::<I>().0.get(position).copied().unwrap_or([0; I]);
            context.load_element(instruction, 1, sign_extend(&index), &mut bytes)?;
            set_element(state, d, position, bytes);
        }
        set_element(state, m, position, [0; N]);
    }
    if let Some(mask) = state.ymm.get_mut(m) {
        *mask = Ymm::default();
    }
    let written = N.wrapping_mul(COUNT);
    if let Some(rest) = state.ymm.get_mut(d).and_then(|ymm| ymm.0.get_mut(written..)) {
        rest.fill(0);
    }
    Ok(())
}

/// Sets element `position`, of `N` bytes, of a register.
fn set_element<const N: usize>(state: &mut VectorState, register: usize, position: usize, value: [u8; N]) {
    let elements = state.ymm.get_mut(register).map(|ymm| ymm.0.as_chunks_mut::<N>().0);
    if let Some(element) = elements.and_then(|elements| elements.get_mut(position)) {
        *element = value;
    }
}

/// The signed integer of 4 or 8 bytes.
fn sign_extend(bytes: &[u8]) -> i64 {
    if let Some(bytes) = bytes.first_chunk::<8>() {
        return i64::from_le_bytes(*bytes);
    }
    bytes.first_chunk().map_or(0, |bytes| i64::from(i32::from_le_bytes(*bytes)))
}

/// Returns the handler of the instruction.
#[rustfmt::skip]
pub(crate) fn handler<C: Operands>(code: Code) -> Option<Handler<C>> {
    Some(match code {
        Code::VEX_Vmaskmovps_xmm_xmm_m128 | Code::VEX_Vpmaskmovd_xmm_xmm_m128 => masked_load::<C, 4, 16>,
        Code::VEX_Vmaskmovps_ymm_ymm_m256 | Code::VEX_Vpmaskmovd_ymm_ymm_m256 => masked_load::<C, 4, 32>,
        Code::VEX_Vmaskmovpd_xmm_xmm_m128 | Code::VEX_Vpmaskmovq_xmm_xmm_m128 => masked_load::<C, 8, 16>,
        Code::VEX_Vmaskmovpd_ymm_ymm_m256 | Code::VEX_Vpmaskmovq_ymm_ymm_m256 => masked_load::<C, 8, 32>,
        Code::VEX_Vmaskmovps_m128_xmm_xmm | Code::VEX_Vpmaskmovd_m128_xmm_xmm => masked_store::<C, 4, 16>,
        Code::VEX_Vmaskmovps_m256_ymm_ymm | Code::VEX_Vpmaskmovd_m256_ymm_ymm => masked_store::<C, 4, 32>,
        Code::VEX_Vmaskmovpd_m128_xmm_xmm | Code::VEX_Vpmaskmovq_m128_xmm_xmm => masked_store::<C, 8, 16>,
        Code::VEX_Vmaskmovpd_m256_ymm_ymm | Code::VEX_Vpmaskmovq_m256_ymm_ymm => masked_store::<C, 8, 32>,
        Code::Maskmovdqu_rDI_xmm_xmm | Code::VEX_Vmaskmovdqu_rDI_xmm_xmm => maskmovdqu,
        Code::Maskmovq_rDI_mm_mm => maskmovq,
        Code::VEX_Vpgatherdd_xmm_vm32x_xmm | Code::VEX_Vgatherdps_xmm_vm32x_xmm => gather::<C, 4, 4, 4>,
        Code::VEX_Vpgatherdd_ymm_vm32y_ymm | Code::VEX_Vgatherdps_ymm_vm32y_ymm => gather::<C, 4, 4, 8>,
        Code::VEX_Vpgatherdq_xmm_vm32x_xmm | Code::VEX_Vgatherdpd_xmm_vm32x_xmm => gather::<C, 4, 8, 2>,
        Code::VEX_Vpgatherdq_ymm_vm32x_ymm | Code::VEX_Vgatherdpd_ymm_vm32x_ymm => gather::<C, 4, 8, 4>,
        Code::VEX_Vpgatherqd_xmm_vm64x_xmm | Code::VEX_Vgatherqps_xmm_vm64x_xmm => gather::<C, 8, 4, 2>,
        Code::VEX_Vpgatherqd_xmm_vm64y_xmm | Code::VEX_Vgatherqps_xmm_vm64y_xmm => gather::<C, 8, 4, 4>,
        Code::VEX_Vpgatherqq_xmm_vm64x_xmm | Code::VEX_Vgatherqpd_xmm_vm64x_xmm => gather::<C, 8, 8, 2>,
        Code::VEX_Vpgatherqq_ymm_vm64y_ymm | Code::VEX_Vgatherqpd_ymm_vm64y_ymm => gather::<C, 8, 8, 4>,
        _ => return None,
    })
}
