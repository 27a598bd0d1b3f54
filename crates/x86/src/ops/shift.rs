//! Shifts and rotates.

use crate::core::{Core, Run};
use crate::flags::Flags;
use crate::int::Int;
use crate::op::{MEMORY, Op};
use crate::registers::RCX;

/// A shift or rotate: the new value, and the flags for a count that is not 0.
pub(crate) trait Shift {
    fn shift<T: Int>(value: T, count: u32, carry: bool) -> T;
    fn set_flags<T: Int>(flags: &mut Flags, value: T, count: u32, result: T);
}

/// The bit of a value; 0 beyond its width.
fn bit<T: Int>(value: T, number: u32) -> bool {
    number < T::BITS && value.zx().wrapping_shr(number) & 1 != 0
}

fn top<T: Int>(value: T) -> bool {
    value.sign()
}

pub(crate) struct Shl;
impl Shift for Shl {
    #[inline(always)]
    fn shift<T: Int>(value: T, count: u32, _: bool) -> T {
        if count >= T::BITS { T::of(0) } else { T::of(value.zx().wrapping_shl(count)) }
    }

    #[inline(always)]
    fn set_flags<T: Int>(flags: &mut Flags, value: T, count: u32, result: T) {
        let carry = bit(value, T::BITS.wrapping_sub(count));
        flags.shifted(result, carry, top(result) ^ carry);
    }
}

pub(crate) struct Shr;
impl Shift for Shr {
    #[inline(always)]
    fn shift<T: Int>(value: T, count: u32, _: bool) -> T {
        if count >= T::BITS { T::of(0) } else { T::of(value.zx().wrapping_shr(count)) }
    }

    #[inline(always)]
    fn set_flags<T: Int>(flags: &mut Flags, value: T, count: u32, result: T) {
        // For counts other than 1 OF is undefined.
        flags.shifted(result, bit(value, count.wrapping_sub(1)), top(value));
    }
}

pub(crate) struct Sar;
impl Shift for Sar {
    #[inline(always)]
    fn shift<T: Int>(value: T, count: u32, _: bool) -> T {
        T::of(value.sx().cast_signed().wrapping_shr(count.min(63)).cast_unsigned())
    }

    #[inline(always)]
    fn set_flags<T: Int>(flags: &mut Flags, value: T, count: u32, result: T) {
        let carry = value.sx().cast_signed().wrapping_shr(count.wrapping_sub(1).min(63)) & 1 != 0;
        flags.shifted(result, carry, false);
    }
}

/// A rotation to the left by less than the width.
#[inline(always)]
fn rotate<T: Int>(value: T, count: u32) -> T {
    let count = count & T::BITS.wrapping_sub(1);
    if count == 0 {
        return value;
    }
    T::of(value.zx().wrapping_shl(count) | value.zx().wrapping_shr(T::BITS.wrapping_sub(count)))
}

pub(crate) struct Rol;
impl Shift for Rol {
    #[inline(always)]
    fn shift<T: Int>(value: T, count: u32, _: bool) -> T {
        rotate(value, count)
    }

    #[inline(always)]
    fn set_flags<T: Int>(flags: &mut Flags, _: T, _: u32, result: T) {
        let carry = bit(result, 0);
        flags.set_carry_overflow(carry, top(result) ^ carry);
    }
}

pub(crate) struct Ror;
impl Shift for Ror {
    #[inline(always)]
    fn shift<T: Int>(value: T, count: u32, _: bool) -> T {
        rotate(value, T::BITS.wrapping_sub(count & T::BITS.wrapping_sub(1)))
    }

    #[inline(always)]
    fn set_flags<T: Int>(flags: &mut Flags, _: T, _: u32, result: T) {
        let carry = top(result);
        flags.set_carry_overflow(carry, carry ^ bit(result, T::BITS.wrapping_sub(2)));
    }
}

/// The value with the carry above it, rotated to the left by less than its width and one.
fn through_carry<T: Int>(value: T, count: u32, carry: bool) -> u128 {
    let width = T::BITS.wrapping_add(1);
    let whole = u128::from(value.zx()) | u128::from(carry).wrapping_shl(T::BITS);
    if count == 0 {
        return whole;
    }
    whole.wrapping_shl(count) | whole.wrapping_shr(width.wrapping_sub(count))
}

fn rotate_carry<T: Int>(core: &mut Core, op: &Op, count: u32, left: bool) -> Run {
    let width = T::BITS.wrapping_add(1);
    let is_nothing = count == 0;
    // Whole turns change OF alone.
    let count = count.checked_rem(width).unwrap_or(0);
    let carry = core.flags.cf();
    let turns = if left || count == 0 { count } else { width.wrapping_sub(count) };
    let (old, new) =
        core.update_first::<T>(op, |value| T::of(through_carry(value, turns, carry) as u64))?;
    if is_nothing {
        return Ok(());
    }
    let out = through_carry(old, turns, carry).wrapping_shr(T::BITS) & 1 != 0;
    let overflow = if left { top(new) ^ out } else { top(new) ^ bit(new, T::BITS.wrapping_sub(2)) };
    core.flags.set_carry_overflow(out, overflow);
    Ok(())
}

/// The bits of a count that are looked at.
#[inline(always)]
const fn masked<T: Int>(count: u64) -> u32 {
    let mask = if T::BYTES == 8 { 63 } else { 31 };
    (count & mask) as u32
}

#[inline(always)]
fn run<S: Shift, T: Int>(core: &mut Core, op: &Op, count: u32) -> Run {
    let carry = core.flags.cf();
    if op.flags & MEMORY == 0 {
        if count != 0 {
            let old = core.reg::<T>(op.dst);
            let new = S::shift(old, count, carry);
            S::set_flags(&mut core.flags, old, count, new);
            core.set_reg(op.dst, new);
        } else if T::BYTES == 4 {
            // The upper half becomes 0 whatever the count.
            let old = core.reg::<T>(op.dst);
            core.set_reg(op.dst, old);
        }
        return Ok(());
    }
    let (old, new) =
        core.update_first::<T>(
            op,
            |value| if count == 0 { value } else { S::shift(value, count, carry) },
        )?;
    if count != 0 {
        S::set_flags(&mut core.flags, old, count, new);
    }
    Ok(())
}

/// By an immediate.
pub(crate) fn by_imm<S: Shift, T: Int>(core: &mut Core, op: &Op) -> Run {
    run::<S, T>(core, op, masked::<T>(op.imm))
}

/// By CL.
pub(crate) fn by_cl<S: Shift, T: Int>(core: &mut Core, op: &Op) -> Run {
    let count = core.r(RCX);
    run::<S, T>(core, op, masked::<T>(count))
}

/// RCL and RCR by an immediate.
pub(crate) fn carry_imm<T: Int, const LEFT: bool>(core: &mut Core, op: &Op) -> Run {
    rotate_carry::<T>(core, op, masked::<T>(op.imm), LEFT)
}

/// RCL and RCR by CL.
pub(crate) fn carry_cl<T: Int, const LEFT: bool>(core: &mut Core, op: &Op) -> Run {
    let count = core.r(RCX);
    rotate_carry::<T>(core, op, masked::<T>(count), LEFT)
}

/// SHLD and SHRD.
fn double<T: Int>(core: &mut Core, op: &Op, count: u32, left: bool) -> Run {
    let other = core.reg::<T>(op.src);
    let shift = |value: T| {
        // Of 16 bits, counts above 16 give what is undefined: here, the operands are repeated.
        let (value, other) = (u128::from(value.zx()), u128::from(other.zx()));
        let bits = T::BITS;
        if left {
            let whole = value.wrapping_shl(bits) | other;
            let whole = if bits == 16 { whole.wrapping_shl(16) | value } else { whole };
            let width = if bits == 16 { 48 } else { bits.wrapping_mul(2) };
            whole.wrapping_shr(width.wrapping_sub(bits).wrapping_sub(count))
        } else {
            let whole = other.wrapping_shl(bits) | value;
            let whole = if bits == 16 { whole | value.wrapping_shl(32) } else { whole };
            whole.wrapping_shr(count)
        }
    };
    let (old, new) =
        core.update_first::<T>(
            op,
            |value| if count == 0 { value } else { T::of(shift(value) as u64) },
        )?;
    if count != 0 {
        let carry = if left {
            let number = T::BITS.wrapping_sub(count);
            if count <= T::BITS {
                bit(old, number)
            } else {
                bit(other, T::BITS.wrapping_mul(2).wrapping_sub(count))
            }
        } else if count <= T::BITS {
            bit(old, count.wrapping_sub(1))
        } else {
            bit(other, count.wrapping_sub(1).wrapping_sub(T::BITS))
        };
        core.flags.shifted(new, carry, top(new) ^ top(old));
    }
    Ok(())
}

/// SHLD and SHRD by an immediate.
pub(crate) fn double_imm<T: Int, const LEFT: bool>(core: &mut Core, op: &Op) -> Run {
    double::<T>(core, op, masked::<T>(op.imm), LEFT)
}

/// SHLD and SHRD by CL.
pub(crate) fn double_cl<T: Int, const LEFT: bool>(core: &mut Core, op: &Op) -> Run {
    let count = core.r(RCX);
    double::<T>(core, op, masked::<T>(count), LEFT)
}
