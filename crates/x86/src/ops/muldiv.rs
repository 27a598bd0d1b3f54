//! Multiplication and division.

use crate::core::{Core, Run};
use crate::exception::DE;
use crate::int::Int;
use crate::op::Op;
use crate::registers::{HIGH, RAX, RDX};

/// The upper half of a product or dividend: AH, or RDX.
const fn upper<T: Int>() -> u8 {
    if T::BYTES == 1 { HIGH } else { RDX }
}

/// Sets CF and OF if the product needs its upper half. ZF, SF, PF and AF, which are undefined, are
/// those of the lower half.
fn set_flags<T: Int>(core: &mut Core, low: T, overflow: bool) {
    core.flags.shifted(low, overflow, overflow);
}

/// MUL.
pub(crate) fn mul<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.first::<T>(op)?;
    let product = u128::from(core.reg::<T>(RAX).zx()).wrapping_mul(u128::from(value.zx()));
    let (low, high) = (T::of(product as u64), T::of(product.wrapping_shr(T::BITS) as u64));
    core.set_reg(RAX, low);
    core.set_reg(upper::<T>(), high);
    set_flags(core, low, high.zx() != 0);
    Ok(())
}

/// The product with sign, and `true` if it does not fit.
fn signed_product<T: Int>(a: T, b: T) -> (T, T, bool) {
    let product = i128::from(a.sx().cast_signed()).wrapping_mul(i128::from(b.sx().cast_signed()));
    let low = T::of(product as u64);
    let high = T::of(product.wrapping_shr(T::BITS) as u64);
    (low, high, i128::from(low.sx().cast_signed()) != product)
}

/// IMUL with one operand.
pub(crate) fn imul<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.first::<T>(op)?;
    let (low, high, overflow) = signed_product(core.reg::<T>(RAX), value);
    core.set_reg(RAX, low);
    core.set_reg(upper::<T>(), high);
    set_flags(core, low, overflow);
    Ok(())
}

/// IMUL with two operands.
pub(crate) fn imul_rm<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<T>(op)?;
    let (low, _, overflow) = signed_product(core.reg::<T>(op.dst), value);
    core.set_reg(op.dst, low);
    set_flags(core, low, overflow);
    Ok(())
}

/// IMUL with three operands.
pub(crate) fn imul_rmi<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<T>(op)?;
    let (low, _, overflow) = signed_product(value, T::of(op.imm));
    core.set_reg(op.dst, low);
    set_flags(core, low, overflow);
    Ok(())
}

/// MULX: the upper half of the product in the first operand, the lower one in the second.
pub(crate) fn mulx<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.third::<T>(op)?;
    let product = u128::from(core.reg::<T>(RDX).zx()).wrapping_mul(u128::from(value.zx()));
    core.set_reg(op.src, T::of(product as u64));
    core.set_reg(op.dst, T::of(product.wrapping_shr(T::BITS) as u64));
    Ok(())
}

/// DIV. The flags, which are undefined, stay.
pub(crate) fn div<T: Int>(core: &mut Core, op: &Op) -> Run {
    let divisor = core.first::<T>(op)?.zx();
    let (low, high) = (core.reg::<T>(RAX).zx(), core.reg::<T>(upper::<T>()).zx());
    // Nearly all dividends of 64-bit programs fit a register.
    let (quotient, remainder) = if T::BYTES < 8 || high == 0 {
        let dividend = if T::BYTES < 8 { high.wrapping_shl(T::BITS) | low } else { low };
        let (Some(quotient), Some(remainder)) =
            (dividend.checked_div(divisor), dividend.checked_rem(divisor))
        else {
            return core.raise(DE);
        };
        (u128::from(quotient), remainder)
    } else {
        let dividend = u128::from(high) << 64 | u128::from(low);
        let divisor = u128::from(divisor);
        let (Some(quotient), Some(remainder)) =
            (dividend.checked_div(divisor), dividend.checked_rem(divisor))
        else {
            return core.raise(DE);
        };
        (quotient, remainder as u64)
    };
    if quotient.wrapping_shr(T::BITS) != 0 {
        return core.raise(DE);
    }
    core.set_reg(RAX, T::of(quotient as u64));
    core.set_reg(upper::<T>(), T::of(remainder));
    Ok(())
}

/// IDIV. The flags, which are undefined, stay.
pub(crate) fn idiv<T: Int>(core: &mut Core, op: &Op) -> Run {
    let divisor = i128::from(core.first::<T>(op)?.sx().cast_signed());
    let (low, high) = (core.reg::<T>(RAX).zx(), core.reg::<T>(upper::<T>()));
    let dividend = i128::from(high.sx().cast_signed()).wrapping_shl(T::BITS) | i128::from(low);
    let (Some(quotient), Some(remainder)) =
        (dividend.checked_div(divisor), dividend.checked_rem(divisor))
    else {
        return core.raise(DE);
    };
    let value = T::of(quotient as u64);
    if i128::from(value.sx().cast_signed()) != quotient {
        return core.raise(DE);
    }
    core.set_reg(RAX, value);
    core.set_reg(upper::<T>(), T::of(remainder as u64));
    Ok(())
}

impl Core {
    /// The third operand, a register or memory.
    pub(crate) fn third<T: Int>(&mut self, op: &Op) -> Run<T> {
        if op.flags & crate::op::MEMORY != 0 {
            let linear = self.linear(op, T::BYTES, false)?;
            return self.load(linear);
        }
        Ok(self.reg(op.imm as u8))
    }
}
