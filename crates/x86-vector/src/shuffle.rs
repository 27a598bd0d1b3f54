//! Instructions that only move data: done in Rust, because the immediate operand is not known
//! before.

use crate::state::Ymm;

/// 16 bytes: a lane of a vector register.
pub(crate) type Lane = [u8; 16];

/// A function of `a`, `b`, the immediate operand and the lane's number, applied to the low lane.
/// The upper lane stays.
macro_rules! lane {
    (run $function:expr) => {
        #[inline(always)]
        unsafe fn run(d: *mut Ymm, a: *const Ymm, b: *const Ymm, _: *const Ymm, imm: u8) {
            let function: fn(Lane, Lane, u8, u8) -> Lane = $function;
            // SAFETY: the caller passes valid registers.
            let (a, b, d) = unsafe { ((*a).low(), (*b).low(), &mut *d) };
            d.set_low(function(a, b, imm, 0));
        }
    };
}

/// As `lane`, with zeros in the upper lane.
macro_rules! lane_vex {
    (run $function:expr) => {
        #[inline(always)]
        unsafe fn run(d: *mut Ymm, a: *const Ymm, b: *const Ymm, _: *const Ymm, imm: u8) {
            let function: fn(Lane, Lane, u8, u8) -> Lane = $function;
            // SAFETY: the caller passes valid registers.
            let (a, b) = unsafe { ((*a).low(), (*b).low()) };
            let result = Ymm::from_lanes(function(a, b, imm, 0), [0; 16]);
            // SAFETY: the caller passes valid registers.
            unsafe { *d = result };
        }
    };
}

/// As `lane`, applied to both lanes.
macro_rules! lanes256 {
    (run $function:expr) => {
        #[inline(always)]
        unsafe fn run(d: *mut Ymm, a: *const Ymm, b: *const Ymm, _: *const Ymm, imm: u8) {
            let function: fn(Lane, Lane, u8, u8) -> Lane = $function;
            // SAFETY: the caller passes valid registers.
            let (a, b) = unsafe { (*a, *b) };
            let result = Ymm::from_lanes(
                function(a.low(), b.low(), imm, 0),
                function(a.high(), b.high(), imm, 1),
            );
            // SAFETY: the caller passes valid registers.
            unsafe { *d = result };
        }
    };
}

/// A function of `a`, `b` and the immediate operand, whose result is the whole register.
macro_rules! whole {
    (run $function:expr) => {
        #[inline(always)]
        unsafe fn run(d: *mut Ymm, a: *const Ymm, b: *const Ymm, _: *const Ymm, imm: u8) {
            let function: fn(Ymm, Ymm, u8) -> Ymm = $function;
            // SAFETY: the caller passes valid registers.
            let (a, b) = unsafe { (*a, *b) };
            // SAFETY: the caller passes valid registers.
            unsafe { *d = function(a, b, imm) };
        }
    };
}

pub(crate) use {lane, lane_vex, lanes256, whole};

/// Elements of `N` bytes.
fn split<const N: usize>(lane: &Lane) -> &[[u8; N]] {
    lane.as_chunks().0
}

/// Element `index` of `N` bytes; the index is taken modulo the number of elements.
#[inline(always)]
fn element<const N: usize>(lane: &Lane, index: u8) -> [u8; N] {
    let elements = split::<N>(lane);
    elements.get(usize::from(index) & elements.len().wrapping_sub(1)).copied().unwrap_or([0; N])
}

/// A lane of elements.
#[inline(always)]
fn join<const N: usize, const COUNT: usize>(elements: [[u8; N]; COUNT]) -> Lane {
    let mut lane = [0; 16];
    for (to, from) in lane.as_chunks_mut::<N>().0.iter_mut().zip(elements) {
        *to = from;
    }
    lane
}

/// `b`.
#[inline(always)]
pub(crate) fn copy(_: Lane, b: Lane, _: u8, _: u8) -> Lane {
    b
}

/// `b`, the whole register.
#[inline(always)]
pub(crate) fn copy256(_: Ymm, b: Ymm, _: u8) -> Ymm {
    b
}

/// `a` with the low `N` bytes of `b`.
#[inline(always)]
pub(crate) fn merge<const N: usize>(a: Lane, b: Lane, _: u8, _: u8) -> Lane {
    let mut result = a;
    for (to, from) in result.iter_mut().zip(b).take(N) {
        *to = from;
    }
    result
}

/// The low `N` bytes of `b`, and zeros.
#[inline(always)]
pub(crate) fn extend<const N: usize>(_: Lane, b: Lane, _: u8, _: u8) -> Lane {
    merge::<N>([0; 16], b, 0, 0)
}

/// The low half of `a` below that of `b`.
#[inline(always)]
pub(crate) fn low_low(a: Lane, b: Lane, _: u8, _: u8) -> Lane {
    join([element::<8>(&a, 0), element(&b, 0)])
}

/// The high half of `b` below that of `a`.
#[inline(always)]
pub(crate) fn high_high(a: Lane, b: Lane, _: u8, _: u8) -> Lane {
    join([element::<8>(&b, 1), element(&a, 1)])
}

/// The high half of `b`, and zeros.
#[inline(always)]
pub(crate) fn high_half(_: Lane, b: Lane, _: u8, _: u8) -> Lane {
    join([element::<8>(&b, 1)])
}

/// PSHUFD, and PERMILPS with an immediate operand.
#[inline(always)]
pub(crate) fn pshufd(_: Lane, b: Lane, imm: u8, _: u8) -> Lane {
    join([
        element::<4>(&b, imm & 3),
        element(&b, imm >> 2),
        element(&b, imm >> 4),
        element(&b, imm >> 6),
    ])
}

/// PSHUFLW, and PSHUFW in the low half.
#[inline(always)]
pub(crate) fn pshuflw(_: Lane, b: Lane, imm: u8, _: u8) -> Lane {
    let word = |shift: u8| element::<2>(&b, imm >> shift & 3);
    let kept = |index| element::<2>(&b, index);
    join([word(0), word(2), word(4), word(6), kept(4), kept(5), kept(6), kept(7)])
}

/// PSHUFHW.
#[inline(always)]
pub(crate) fn pshufhw(_: Lane, b: Lane, imm: u8, _: u8) -> Lane {
    let word = |shift: u8| element::<2>(&b, imm >> shift & 3 | 4);
    let kept = |index| element::<2>(&b, index);
    join([kept(0), kept(1), kept(2), kept(3), word(0), word(2), word(4), word(6)])
}

/// SHUFPS.
#[inline(always)]
pub(crate) fn shufps(a: Lane, b: Lane, imm: u8, _: u8) -> Lane {
    join([
        element::<4>(&a, imm),
        element(&a, imm >> 2),
        element(&b, imm >> 4),
        element(&b, imm >> 6),
    ])
}

/// The immediate operand's bits for elements of 64 bits in a lane.
#[inline(always)]
fn pair(imm: u8, lane: u8) -> (u8, u8) {
    let bits = if lane == 0 { imm } else { imm >> 2 };
    (bits, bits >> 1)
}

/// SHUFPD.
#[inline(always)]
pub(crate) fn shufpd(a: Lane, b: Lane, imm: u8, lane: u8) -> Lane {
    let (first, second) = pair(imm, lane);
    join([element::<8>(&a, first), element(&b, second)])
}

/// PERMILPD with an immediate operand.
#[inline(always)]
pub(crate) fn permilpd(_: Lane, b: Lane, imm: u8, lane: u8) -> Lane {
    let (first, second) = pair(imm, lane);
    join([element::<8>(&b, first), element(&b, second)])
}

/// Elements of `b` where a bit is set, from the lowest on, and else of `a`.
#[inline(always)]
fn choose<const N: usize>(a: Lane, b: Lane, bits: u8) -> Lane {
    let mut result = a;
    let elements = result.as_chunks_mut::<N>().0.iter_mut().zip(split::<N>(&b));
    for (index, (to, from)) in elements.enumerate() {
        if bits >> index & 1 != 0 {
            *to = *from;
        }
    }
    result
}

/// BLENDPS and PBLENDD.
#[inline(always)]
pub(crate) fn blend4(a: Lane, b: Lane, imm: u8, lane: u8) -> Lane {
    choose::<4>(a, b, if lane == 0 { imm } else { imm >> 4 })
}

/// BLENDPD.
#[inline(always)]
pub(crate) fn blend8(a: Lane, b: Lane, imm: u8, lane: u8) -> Lane {
    choose::<8>(a, b, pair(imm, lane).0)
}

/// PBLENDW.
#[inline(always)]
pub(crate) fn blend2(a: Lane, b: Lane, imm: u8, _: u8) -> Lane {
    choose::<2>(a, b, imm)
}

/// PALIGNR.
#[inline(always)]
pub(crate) fn palignr(a: Lane, b: Lane, imm: u8, _: u8) -> Lane {
    let (low, high) = (u128::from_le_bytes(b), u128::from_le_bytes(a));
    let bits = u32::from(imm).wrapping_mul(8);
    let result = match bits {
        0 => low,
        1..128 => low >> bits | high << 128_u32.wrapping_sub(bits),
        _ => high.checked_shr(bits.wrapping_sub(128)).unwrap_or(0),
    };
    result.to_le_bytes()
}

/// PALIGNR of MMX registers.
#[inline(always)]
pub(crate) fn palignr_mmx(a: Lane, b: Lane, imm: u8, _: u8) -> Lane {
    let both = u128::from_le_bytes(join([element::<8>(&b, 0), element(&a, 0)]));
    both.checked_shr(u32::from(imm).wrapping_mul(8)).unwrap_or(0).to_le_bytes()
}

/// PSLLDQ.
#[inline(always)]
pub(crate) fn pslldq(a: Lane, _: Lane, imm: u8, _: u8) -> Lane {
    u128::from_le_bytes(a).checked_shl(u32::from(imm).wrapping_mul(8)).unwrap_or(0).to_le_bytes()
}

/// PSRLDQ.
#[inline(always)]
pub(crate) fn psrldq(a: Lane, _: Lane, imm: u8, _: u8) -> Lane {
    u128::from_le_bytes(a).checked_shr(u32::from(imm).wrapping_mul(8)).unwrap_or(0).to_le_bytes()
}

/// `a` with the low `N` bytes of `b` as element `imm`.
#[inline(always)]
pub(crate) fn insert<const N: usize>(a: Lane, b: Lane, imm: u8, _: u8) -> Lane {
    let mut result = a;
    let elements = result.as_chunks_mut::<N>().0;
    let index = usize::from(imm) & elements.len().wrapping_sub(1);
    if let Some(to) = elements.get_mut(index) {
        *to = element(&b, 0);
    }
    result
}

/// PINSRW to an MMX register.
#[inline(always)]
pub(crate) fn insert_mmx(a: Lane, b: Lane, imm: u8, _: u8) -> Lane {
    insert::<2>(a, b, imm & 3, 0)
}

/// Element `imm` of `b`, zero-extended.
#[inline(always)]
pub(crate) fn extract<const N: usize>(_: Lane, b: Lane, imm: u8, _: u8) -> Lane {
    join([element::<N>(&b, imm)])
}

/// PEXTRW from an MMX register.
#[inline(always)]
pub(crate) fn extract_mmx(_: Lane, b: Lane, imm: u8, _: u8) -> Lane {
    join([element::<2>(&b, imm & 3)])
}

/// INSERTPS.
#[inline(always)]
pub(crate) fn insertps(a: Lane, b: Lane, imm: u8, _: u8) -> Lane {
    let inserted = insert::<4>(a, join([element::<4>(&b, imm >> 6)]), imm >> 4 & 3, 0);
    choose::<4>(inserted, [0; 16], imm)
}

/// The low `N` bytes of `b` in all elements.
#[inline(always)]
pub(crate) fn broadcast<const N: usize>(_: Ymm, b: Ymm, _: u8) -> Ymm {
    let lane = b.low();
    let mut result = [0; 16];
    for to in result.as_chunks_mut::<N>().0 {
        *to = element(&lane, 0);
    }
    Ymm::from_lanes(result, result)
}

/// The low `N` bytes of `b` in all elements of the low lane, and zeros.
#[inline(always)]
pub(crate) fn broadcast_low<const N: usize>(a: Ymm, b: Ymm, imm: u8) -> Ymm {
    Ymm::from_lanes(broadcast::<N>(a, b, imm).low(), [0; 16])
}

/// VPERMQ and VPERMPD.
#[inline(always)]
pub(crate) fn permq(_: Ymm, b: Ymm, imm: u8) -> Ymm {
    let (low, high) = (b.low(), b.high());
    let word = |shift: u8| {
        let index = imm >> shift & 3;
        element::<8>(if index < 2 { &low } else { &high }, index)
    };
    Ymm::from_lanes(join([word(0), word(2)]), join([word(4), word(6)]))
}

/// VPERM2F128 and VPERM2I128.
#[inline(always)]
pub(crate) fn perm2(a: Ymm, b: Ymm, imm: u8) -> Ymm {
    let half = |bits: u8| match bits & 0xb {
        0 => a.low(),
        1 => a.high(),
        2 => b.low(),
        3 => b.high(),
        _ => [0; 16],
    };
    Ymm::from_lanes(half(imm), half(imm >> 4))
}

/// VINSERTF128 and VINSERTI128.
#[inline(always)]
pub(crate) fn insert128(a: Ymm, b: Ymm, imm: u8) -> Ymm {
    if imm & 1 == 0 {
        Ymm::from_lanes(b.low(), a.high())
    } else {
        Ymm::from_lanes(a.low(), b.low())
    }
}

/// VEXTRACTF128 and VEXTRACTI128.
#[inline(always)]
pub(crate) fn extract128(_: Ymm, b: Ymm, imm: u8) -> Ymm {
    Ymm::from_lanes(if imm & 1 == 0 { b.low() } else { b.high() }, [0; 16])
}
