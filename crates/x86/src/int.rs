//! Operand sizes.

use nerite_memory::Word;

/// An operand of 8, 16, 32 or 64 bits.
pub(crate) trait Int: Word + Copy + Eq + Ord + std::fmt::Debug + 'static {
    /// Width in bits.
    const BITS: u32;
    /// Width in bytes.
    const BYTES: u64;
    /// The low bits of `value`.
    fn of(value: u64) -> Self;
    /// Zero-extended.
    fn zx(self) -> u64;
    /// Sign-extended.
    fn sx(self) -> u64;
    /// The sum with a carry, and the carry out of it.
    fn add_carry(self, other: Self, carry: bool) -> (Self, bool);
    /// The difference with a borrow, and the borrow out of it.
    fn sub_borrow(self, other: Self, borrow: bool) -> (Self, bool);
    /// A register's value after a write of this size to its low part (Intel SDM vol. 1, 3.4.1.1).
    fn merge(self, old: u64) -> u64;
    /// Swapped bytes.
    fn swap(self) -> Self;
    /// The sign bit.
    #[inline(always)]
    fn sign(self) -> bool {
        self.sx() >> 63 != 0
    }
}

macro_rules! int {
    ($type:ty, $signed:ty, $merge:expr) => {
        impl Int for $type {
            const BITS: u32 = <$type>::BITS;
            const BYTES: u64 = size_of::<$type>() as u64;

            #[inline(always)]
            fn of(value: u64) -> Self {
                value as Self
            }

            #[inline(always)]
            fn zx(self) -> u64 {
                u64::from(self)
            }

            #[inline(always)]
            fn sx(self) -> u64 {
                i64::from(self as $signed).cast_unsigned()
            }

            #[inline(always)]
            fn add_carry(self, other: Self, carry: bool) -> (Self, bool) {
                let (sum, first) = self.overflowing_add(other);
                let (sum, second) = sum.overflowing_add(Self::from(carry));
                (sum, first | second)
            }

            #[inline(always)]
            fn sub_borrow(self, other: Self, borrow: bool) -> (Self, bool) {
                let (difference, first) = self.overflowing_sub(other);
                let (difference, second) = difference.overflowing_sub(Self::from(borrow));
                (difference, first | second)
            }

            #[inline(always)]
            fn merge(self, old: u64) -> u64 {
                let merge: fn(u64, u64) -> u64 = $merge;
                merge(old, u64::from(self))
            }

            #[inline(always)]
            fn swap(self) -> Self {
                self.swap_bytes()
            }
        }
    };
}

int!(u8, i8, |old, new| old & !0xff | new);
int!(u16, i16, |old, new| old & !0xffff | new);
int!(u32, i32, |_, new| new);
int!(u64, i64, |_, new| new);

/// The `bits` low bits, 0 to 64.
pub(crate) const fn mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1_u64.wrapping_shl(bits)).wrapping_sub(1) }
}

/// `value` sign-extended from its `bytes` low bytes, 1 to 8.
pub(crate) const fn sign_extend(value: u64, bytes: u64) -> u64 {
    let shift = 64_u64.wrapping_sub(bytes.wrapping_mul(8)) as u32 & 63;
    (value.wrapping_shl(shift).cast_signed().wrapping_shr(shift)).cast_unsigned()
}
