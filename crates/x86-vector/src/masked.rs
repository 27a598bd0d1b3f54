//! Instructions that access chosen elements of memory.

use iced_x86::Code;

use crate::Handler;
use crate::mmx::{check_pending, enter_mmx, mmx_number};
use crate::operands::{Fields, Operands};
use crate::shapes::{Outcome, number};
use crate::state::{VectorState, Ymm};

/// The vector register of operand `operand`.
fn register(state: &VectorState, fields: &Fields, operand: usize) -> Ymm {
    state.ymm.get(number(fields.register(operand))).copied().unwrap_or_default()
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
    context: &mut C,
    op: &C::Op,
) -> Outcome<C> {
    let mask = register(context.vector(), op.as_ref(), 1);
    let mut result = Ymm::default();
    let elements = result.0.as_chunks_mut::<N>().0;
    for (index, offset) in chosen::<N>(mask.0.get(..BYTES).unwrap_or_default()) {
        if let Some(element) = elements.get_mut(index) {
            context.load_at(op, offset, element)?;
        }
    }
    if let Some(register) = context.vector_mut().ymm.get_mut(number(op.as_ref().register(0))) {
        *register = result;
    }
    Ok(())
}

/// VMASKMOVPS, VMASKMOVPD and VPMASKMOV to memory. The last element is written first, so that
/// nothing is if the second of two pages faults; elements after one that faults may have been
/// written.
fn masked_store<C: Operands, const N: usize, const BYTES: usize>(
    context: &mut C,
    op: &C::Op,
) -> Outcome<C> {
    let (state, fields) = (context.vector(), op.as_ref());
    let (mask, source) = (register(state, fields, 1), register(state, fields, 2));
    let elements = source.0.as_chunks::<N>().0;
    for (index, offset) in chosen::<N>(mask.0.get(..BYTES).unwrap_or_default()).rev() {
        if let Some(element) = elements.get(index) {
            context.store_at(op, offset, element)?;
        }
    }
    Ok(())
}

/// Stores the bytes of `source` whose sign bit is set in `mask`.
fn store_bytes<C: Operands>(context: &mut C, op: &C::Op, source: &[u8], mask: &[u8]) -> Outcome<C> {
    for (index, offset) in chosen::<1>(mask).rev() {
        if let Some(byte) = source.get(index) {
            context.store_at(op, offset, &[*byte])?;
        }
    }
    Ok(())
}

/// MASKMOVDQU and VMASKMOVDQU. Bytes are written as by [`masked_store`].
fn maskmovdqu<C: Operands>(context: &mut C, op: &C::Op) -> Outcome<C> {
    let (state, fields) = (context.vector(), op.as_ref());
    let (source, mask) = (register(state, fields, 1), register(state, fields, 2));
    store_bytes(context, op, &source.low(), &mask.low())
}

/// MASKMOVQ. Bytes are written as by [`masked_store`].
fn maskmovq<C: Operands>(context: &mut C, op: &C::Op) -> Outcome<C> {
    check_pending(context)?;
    let (state, fields) = (context.vector_mut(), op.as_ref());
    let source = state.x87.mm(mmx_number(fields.register(1))).to_le_bytes();
    let mask = state.x87.mm(mmx_number(fields.register(2))).to_le_bytes();
    enter_mmx(state);
    store_bytes(context, op, &source, &mask)
}

/// Gathers: `COUNT` elements of `N` bytes, by indices of `I` bytes. If one faults, those before it
/// are done, and their masks cleared.
fn gather<C: Operands, const I: usize, const N: usize, const COUNT: usize>(
    context: &mut C,
    op: &C::Op,
) -> Outcome<C> {
    let fields = op.as_ref();
    let (d, m) = (number(fields.register(0)), number(fields.register(2)));
    let indices = context.vector().ymm.get(number(fields.index)).copied().unwrap_or_default();
    for position in 0..COUNT {
        let masks = register(context.vector(), fields, 2);
        let mask = masks.0.as_chunks::<N>().0.get(position).copied().unwrap_or([0; N]);
        let mut bytes = [0; N];
        if mask.last().is_some_and(|byte| byte & 0x80 != 0) {
            let index = indices.0.as_chunks::<I>().0.get(position).copied().unwrap_or([0; I]);
            context.load_element(op, sign_extend(&index), &mut bytes)?;
            set_element(context.vector_mut(), d, position, bytes);
        }
        set_element(context.vector_mut(), m, position, [0; N]);
    }
    let state = context.vector_mut();
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
fn set_element<const N: usize>(
    state: &mut VectorState,
    register: usize,
    position: usize,
    value: [u8; N],
) {
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
