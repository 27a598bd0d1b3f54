//! RFLAGS, with the status flags in a form that costs little to write.

use crate::int::Int;

pub(crate) const CF: u64 = 1;
pub(crate) const PF: u64 = 1 << 2;
pub(crate) const AF: u64 = 1 << 4;
pub(crate) const ZF: u64 = 1 << 6;
pub(crate) const SF: u64 = 1 << 7;
pub(crate) const TF: u64 = 1 << 8;
pub(crate) const IF: u64 = 1 << 9;
pub(crate) const DF: u64 = 1 << 10;
pub(crate) const OF: u64 = 1 << 11;
pub(crate) const IOPL: u64 = 3 << 12;
pub(crate) const NT: u64 = 1 << 14;
pub(crate) const RF: u64 = 1 << 16;
pub(crate) const VM: u64 = 1 << 17;
pub(crate) const AC: u64 = 1 << 18;
pub(crate) const VIF: u64 = 1 << 19;
pub(crate) const VIP: u64 = 1 << 20;
pub(crate) const ID: u64 = 1 << 21;
/// The status flags: those of arithmetic.
pub(crate) const STATUS: u64 = CF | PF | AF | ZF | SF | OF;
/// All flags that exist.
pub(crate) const ALL: u64 = STATUS | TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;

/// In `carry`: SF differs from the sign of `result`.
const SIGN_DELTA: u64 = 1 << 1;
/// In `carry`: PF differs from the parity of `result`.
const PARITY_DELTA: u64 = 1 << 2;
/// In `aux`: OF differs from CF. It is the carry into the most significant bit.
const TOP: u64 = 1 << 63;

/// RFLAGS. An arithmetic instruction writes three words, and each status flag is computed from them
/// when it is read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flags {
    /// The last result, sign-extended: ZF, SF and PF.
    result: u64,
    /// The carries into each bit, sign-extended: AF and OF.
    aux: u64,
    /// Bit 0: CF.
    carry: u64,
    /// All other flags.
    pub(crate) control: u64,
}

impl Flags {
    /// Takes a whole RFLAGS.
    pub(crate) fn set(&mut self, value: u64) {
        self.control = value & ALL & !STATUS;
        self.set_status(value);
    }

    /// RFLAGS.
    pub(crate) fn get(&self) -> u64 {
        self.control | self.status() | 2
    }

    /// The status flags.
    pub(crate) fn status(&self) -> u64 {
        let bit = |set: bool, flag: u64| if set { flag } else { 0 };
        self.carry & CF
            | bit(self.pf(), PF)
            | self.aux & AF
            | bit(self.zf(), ZF)
            | bit(self.sf(), SF)
            | bit(self.of(), OF)
    }

    /// Sets all status flags from bits of RFLAGS.
    pub(crate) fn set_status(&mut self, value: u64) {
        let zero = value & ZF != 0;
        self.result = u64::from(!zero) << 8;
        // The result has an even parity and no sign.
        let sign = if value & SF == 0 { 0 } else { SIGN_DELTA };
        let parity = if value & PF == 0 { PARITY_DELTA } else { 0 };
        self.carry = value & CF | sign | parity;
        let differ = (value & OF != 0) != (value & CF != 0);
        self.aux = value & AF | if differ { TOP } else { 0 };
    }

    /// Sets those of the status flags that are in `mask`.
    pub(crate) fn change(&mut self, mask: u64, value: u64) {
        self.set_status(self.status() & !mask | value & mask);
    }

    /// Those of an addition.
    #[inline(always)]
    pub(crate) fn added<T: Int>(&mut self, a: T, b: T, result: T, carry: bool) {
        self.result = result.sx();
        self.aux = T::of(a.zx() ^ b.zx() ^ result.zx()).sx();
        self.carry = u64::from(carry);
    }

    /// Those of an addition or subtraction of one, which leave CF as it is.
    #[inline(always)]
    pub(crate) fn counted<T: Int>(&mut self, a: T, result: T, carry: bool) {
        let old = self.carry & CF;
        self.result = result.sx();
        let aux = T::of(a.zx() ^ 1 ^ result.zx()).sx();
        self.aux = aux ^ (u64::from(carry) ^ old) << 63;
        self.carry = old;
    }

    /// Those of a logical operation. AF, which is undefined, becomes 0.
    #[inline(always)]
    pub(crate) fn logic<T: Int>(&mut self, result: T) {
        self.result = result.sx();
        self.aux = 0;
        self.carry = 0;
    }

    /// Those of a shift: ZF, SF and PF of the result, and CF and OF.
    #[inline(always)]
    pub(crate) fn shifted<T: Int>(&mut self, result: T, carry: bool, overflow: bool) {
        self.result = result.sx();
        self.aux = u64::from(carry ^ overflow) << 63;
        self.carry = u64::from(carry);
    }

    /// CF and OF; the others stay.
    #[inline(always)]
    pub(crate) fn set_carry_overflow(&mut self, carry: bool, overflow: bool) {
        self.carry = self.carry & !CF | u64::from(carry);
        self.aux = self.aux & !TOP | u64::from(carry ^ overflow) << 63;
    }

    /// CF; the others stay.
    #[inline(always)]
    pub(crate) fn set_carry(&mut self, carry: bool) {
        let overflow = self.of();
        self.set_carry_overflow(carry, overflow);
    }

    #[inline(always)]
    pub(crate) fn cf(&self) -> bool {
        self.carry & CF != 0
    }

    #[inline(always)]
    pub(crate) fn zf(&self) -> bool {
        self.result == 0
    }

    #[inline(always)]
    pub(crate) fn sf(&self) -> bool {
        (self.result >> 63) ^ (self.carry >> 1 & 1) != 0
    }

    #[inline(always)]
    pub(crate) fn of(&self) -> bool {
        (self.aux >> 63) ^ (self.carry & CF) != 0
    }

    #[inline(always)]
    pub(crate) fn pf(&self) -> bool {
        let odd = (self.result & 0xff).count_ones() & 1 != 0;
        odd == (self.carry & PARITY_DELTA != 0)
    }

    pub(crate) fn af(&self) -> bool {
        self.aux & AF != 0
    }

    /// The condition of this number, as in the low bits of the opcode (Intel SDM vol. 1, appendix
    /// B).
    #[inline(always)]
    pub(crate) fn condition(&self, number: u8) -> bool {
        let base = match number >> 1 & 7 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() | self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() ^ self.of(),
            _ => self.zf() | (self.sf() ^ self.of()),
        };
        base ^ (number & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_of_status_flags_is_kept() {
        let mut flags = Flags::default();
        for bits in 0..1_u64 << 12 {
            let value = bits & STATUS;
            flags.set(value | IF);
            assert_eq!(flags.get(), value | IF | 2, "{value:#x}");
            for mask in [CF, ZF | SF, OF, STATUS] {
                let mut changed = flags;
                changed.change(mask, !value);
                assert_eq!(changed.status(), value & !mask | !value & mask);
            }
            let mut changed = flags;
            changed.set_carry(value & CF == 0);
            assert_eq!(changed.status(), value ^ CF);
        }
    }

    #[test]
    fn sums_and_differences_of_bytes() {
        let mut flags = Flags::default();
        for a in 0..=u8::MAX {
            for b in 0..=u8::MAX {
                let (sum, carry) = a.add_carry(b, true);
                flags.added(a, b, sum, carry);
                assert_eq!(
                    flags.of(),
                    a.cast_signed().checked_add_unsigned(0).is_some_and(|a| {
                        i16::from(a) + i16::from(b.cast_signed()) + 1
                            != i16::from(sum.cast_signed())
                    })
                );
                assert_eq!((flags.cf(), flags.zf(), flags.sf()), (carry, sum == 0, sum >= 0x80));
                assert_eq!(flags.af(), (a & 15) + (b & 15) + 1 > 15);
                assert_eq!(flags.pf(), sum.count_ones() % 2 == 0);
            }
        }
    }
}
