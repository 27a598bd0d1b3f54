//! Tests for numbers of which an operation raises no other exception than inexact.

use core::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_andnot_si128, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_cmpgt_epi32,
    _mm_load_si128, _mm_movemask_ps, _mm_or_si128, _mm_set1_epi32, _mm_set1_epi64x, _mm_setzero_si128,
    _mm_shuffle_epi32,
};

use crate::state::Ymm;

/// Test of inputs.
pub(crate) trait Inputs {
    /// `true` if the operation raises no other exception than inexact on account of this input.
    fn ordinary(input: &Ymm) -> bool;
}

/// Test of a result.
pub(crate) trait Results {
    /// `true` if the operation raised no other exception than inexact on account of the result, for
    /// inputs that are ordinary.
    fn ordinary(result: &Ymm, inputs: [&Ymm; 2]) -> bool;

    /// `true` if an element is tiny though the host has flushed tiny results to zero.
    fn tiny(_: &Ymm) -> bool {
        false
    }
}

/// Numbers that raise no other exception than inexact, whatever they are.
pub(crate) struct Any;

impl Inputs for Any {
    #[inline(always)]
    fn ordinary(_: &Ymm) -> bool {
        true
    }
}

impl Results for Any {
    #[inline(always)]
    fn ordinary(_: &Ymm, _: [&Ymm; 2]) -> bool {
        true
    }
}

/// Numbers that are not looked at: the environment is always set.
pub(crate) struct Careful;

impl Inputs for Careful {
    #[inline(always)]
    fn ordinary(_: &Ymm) -> bool {
        false
    }
}

impl Results for Careful {
    #[inline(always)]
    fn ordinary(_: &Ymm, _: [&Ymm; 2]) -> bool {
        false
    }
}

/// Half-precision results, which are never flushed to zero. The environment is always set.
pub(crate) struct Half;

impl Results for Half {
    #[inline(always)]
    fn ordinary(_: &Ymm, _: [&Ymm; 2]) -> bool {
        false
    }

    fn tiny(register: &Ymm) -> bool {
        let mut elements = register.0.as_chunks::<2>().0.iter().map(|&element| u16::from_le_bytes(element));
        elements.any(|bits| bits & 0x7c00 == 0 && bits & 0x3ff != 0)
    }
}

/// Elements of a format.
pub(crate) trait Format {
    /// `true` if an element is denormal.
    fn denormal(register: &Ymm) -> bool;
    /// `true` if an element is infinite or not a number.
    fn large(register: &Ymm) -> bool;
    /// `true` if an element is zero or so small that it may have been rounded up to the least
    /// normal number.
    fn small(register: &Ymm) -> bool;
    /// `true` if wherever an element is small, it is zero, and so is that of one of the inputs.
    fn zero_by_input(register: &Ymm, inputs: [&Ymm; 2]) -> bool;
}

/// Inputs of arithmetic, for which [`Sum`], [`Product`] or [`Strict`] finds infinities and NaNs by
/// the result.
pub(crate) struct Arithmetic<F>(std::marker::PhantomData<F>);

impl<F: Format> Inputs for Arithmetic<F> {
    #[inline(always)]
    fn ordinary(input: &Ymm) -> bool {
        !F::denormal(input)
    }
}

/// Inputs that are to be zero or normal numbers.
pub(crate) struct Finite<F>(std::marker::PhantomData<F>);

impl<F: Format> Inputs for Finite<F> {
    #[inline(always)]
    fn ordinary(input: &Ymm) -> bool {
        !(F::denormal(input) | F::large(input))
    }
}

/// Results of additions and subtractions: these can overflow, but a tiny sum is exact.
pub(crate) struct Sum<F>(std::marker::PhantomData<F>);

impl<F: Format> Results for Sum<F> {
    #[inline(always)]
    fn ordinary(result: &Ymm, _: [&Ymm; 2]) -> bool {
        !F::large(result)
    }
}

/// Results of multiplications, divisions and roots: a zero is exact if an input is zero.
pub(crate) struct Product<F>(std::marker::PhantomData<F>);

impl<F: Format> Results for Product<F> {
    #[inline(always)]
    fn ordinary(result: &Ymm, inputs: [&Ymm; 2]) -> bool {
        !F::large(result) && (!F::small(result) || F::zero_by_input(result, inputs))
    }
}

/// Results of other operations: any that is zero or tiny may have raised an exception.
pub(crate) struct Strict<F>(std::marker::PhantomData<F>);

impl<F: Format> Results for Strict<F> {
    #[inline(always)]
    fn ordinary(result: &Ymm, _: [&Ymm; 2]) -> bool {
        !F::large(result) & !F::small(result)
    }
}

/// The first 4 or 8 bytes as the result of a conversion, which is the smallest integer if it
/// failed.
pub(crate) struct Integer<const BYTES: usize>;

impl<const BYTES: usize> Results for Integer<BYTES> {
    #[inline(always)]
    fn ordinary(result: &Ymm, _: [&Ymm; 2]) -> bool {
        result.as_u64() != if BYTES == 4 { 1 << 31 } else { 1 << 63 }
    }
}

/// The number of 32 bits at the start of a register.
pub(crate) struct Single;

impl Single {
    /// The number without its sign.
    #[inline(always)]
    fn magnitude(register: &Ymm) -> u32 {
        register.0.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)) & 0x7fff_ffff
    }
}

impl Format for Single {
    #[inline(always)]
    fn denormal(register: &Ymm) -> bool {
        Self::magnitude(register).wrapping_sub(1) < (1 << 23) - 1
    }

    #[inline(always)]
    fn large(register: &Ymm) -> bool {
        Self::magnitude(register) >= 0x7f80_0000
    }

    #[inline(always)]
    fn small(register: &Ymm) -> bool {
        Self::magnitude(register) < 2 << 23
    }

    #[inline(always)]
    fn zero_by_input(register: &Ymm, inputs: [&Ymm; 2]) -> bool {
        Self::magnitude(register) == 0 && inputs.iter().any(|input| Self::magnitude(input) == 0)
    }
}

/// The number of 64 bits at the start of a register.
pub(crate) struct Double;

impl Double {
    /// The number without its sign.
    #[inline(always)]
    fn magnitude(register: &Ymm) -> u64 {
        register.as_u64() & !(1 << 63)
    }
}

impl Format for Double {
    #[inline(always)]
    fn denormal(register: &Ymm) -> bool {
        Self::magnitude(register).wrapping_sub(1) < (1 << 52) - 1
    }

    #[inline(always)]
    fn large(register: &Ymm) -> bool {
        Self::magnitude(register) >= 0x7ff << 52
    }

    #[inline(always)]
    fn small(register: &Ymm) -> bool {
        Self::magnitude(register) < 2 << 52
    }

    #[inline(always)]
    fn zero_by_input(register: &Ymm, inputs: [&Ymm; 2]) -> bool {
        Self::magnitude(register) == 0 && inputs.iter().any(|input| Self::magnitude(input) == 0)
    }
}

/// The numbers of 32 bits in the first `HALVES` halves of a register.
pub(crate) struct Singles<const HALVES: usize>;

impl<const HALVES: usize> Format for Singles<HALVES> {
    #[inline(always)]
    fn denormal(register: &Ymm) -> bool {
        // SAFETY: all hosts have SSE2.
        unsafe { any::<HALVES>(register, Test::Denormal32) }
    }

    #[inline(always)]
    fn large(register: &Ymm) -> bool {
        // SAFETY: all hosts have SSE2.
        unsafe { any::<HALVES>(register, Test::Large32) }
    }

    #[inline(always)]
    fn small(register: &Ymm) -> bool {
        // SAFETY: all hosts have SSE2.
        unsafe { any::<HALVES>(register, Test::Small32) }
    }

    fn zero_by_input(result: &Ymm, inputs: [&Ymm; 2]) -> bool {
        elements::<4, Single>(result, inputs, HALVES)
    }
}

/// The numbers of 64 bits in the first `HALVES` halves of a register.
pub(crate) struct Doubles<const HALVES: usize>;

impl<const HALVES: usize> Format for Doubles<HALVES> {
    #[inline(always)]
    fn denormal(register: &Ymm) -> bool {
        // SAFETY: all hosts have SSE2.
        unsafe { any::<HALVES>(register, Test::Denormal64) }
    }

    #[inline(always)]
    fn large(register: &Ymm) -> bool {
        // SAFETY: all hosts have SSE2.
        unsafe { any::<HALVES>(register, Test::Large64) }
    }

    #[inline(always)]
    fn small(register: &Ymm) -> bool {
        // SAFETY: all hosts have SSE2.
        unsafe { any::<HALVES>(register, Test::Small64) }
    }

    fn zero_by_input(result: &Ymm, inputs: [&Ymm; 2]) -> bool {
        elements::<8, Double>(result, inputs, HALVES)
    }
}

/// [`Format::zero_by_input`] of elements of `SIZE` bytes, which are numbers of the scalar format
/// `F`.
fn elements<const SIZE: usize, F: Format>(result: &Ymm, inputs: [&Ymm; 2], halves: usize) -> bool {
    let scalar = |register: &Ymm, index: usize| {
        let mut scalar = Ymm::default();
        let elements = register.0.as_chunks::<SIZE>().0;
        if let (Some(to), Some(from)) = (scalar.0.first_chunk_mut(), elements.get(index)) {
            *to = *from;
        }
        scalar
    };
    let count = halves.wrapping_mul(16).checked_div(SIZE).unwrap_or(0);
    (0..count).all(|index| {
        let [a, b] = inputs.map(|input| scalar(input, index));
        let result = scalar(result, index);
        !F::small(&result) || F::zero_by_input(&result, [&a, &b])
    })
}

/// Test of elements.
#[derive(Clone, Copy)]
enum Test {
    Denormal32,
    Large32,
    Small32,
    Denormal64,
    Large64,
    Small64,
}

/// `true` if the test is true of an element in the first `HALVES` halves of a register.
#[inline]
#[target_feature(enable = "sse2")]
fn any<const HALVES: usize>(register: &Ymm, test: Test) -> bool {
    let start: *const __m128i = (&raw const *register).cast();
    let mut found = _mm_setzero_si128();
    for index in 0..HALVES.min(2) {
        // SAFETY: a register has two halves of 16 bytes, and is aligned to 32.
        let half = unsafe { _mm_load_si128(start.wrapping_add(index)) };
        found = _mm_or_si128(found, tested(half, test));
    }
    _mm_movemask_ps(_mm_castsi128_ps(found)) != 0
}

/// Elements that the test is true of: all bits of them, or of their upper 32 bits.
#[inline]
#[target_feature(enable = "sse2")]
fn tested(half: __m128i, test: Test) -> __m128i {
    let zero = _mm_setzero_si128();
    let magnitude32 = _mm_and_si128(half, _mm_set1_epi32(0x7fff_ffff));
    let magnitude64 = _mm_and_si128(half, _mm_set1_epi64x(i64::MAX));
    // Lower halves of elements of 64 bits are compared with what makes the test false.
    let above = |bound: i32| _mm_set1_epi64x(i64::from(bound) << 32 | 0x7fff_ffff);
    let below = |bound: i32| _mm_set1_epi64x(i64::from(bound) << 32 | 0x8000_0000);
    match test {
        Test::Denormal32 => {
            let small = _mm_cmpgt_epi32(_mm_set1_epi32(1 << 23), magnitude32);
            _mm_and_si128(small, _mm_cmpgt_epi32(magnitude32, zero))
        }
        Test::Large32 => _mm_cmpgt_epi32(magnitude32, _mm_set1_epi32(0x7f7f_ffff)),
        Test::Small32 => _mm_cmpgt_epi32(_mm_set1_epi32(2 << 23), magnitude32),
        Test::Denormal64 => {
            let small = _mm_cmpgt_epi32(below(1 << 20), magnitude64);
            let zeros = _mm_cmpeq_epi32(magnitude64, zero);
            _mm_andnot_si128(_mm_and_si128(zeros, _mm_shuffle_epi32::<0b10_11_00_01>(zeros)), small)
        }
        Test::Large64 => _mm_cmpgt_epi32(magnitude64, above(0x7fef_ffff)),
        Test::Small64 => _mm_cmpgt_epi32(below(2 << 20), magnitude64),
    }
}
