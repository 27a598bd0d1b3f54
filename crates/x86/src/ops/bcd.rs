//! Decimal arithmetic (Intel SDM vol. 1, 7.3.3). Flags that are undefined become 0.

use crate::core::{Core, Run};
use crate::exception::DE;
use crate::flags::{AF, CF};
use crate::op::Op;
use crate::registers::{HIGH, RAX};

fn set(core: &mut Core, value: u8, adjust: bool, carry: bool) {
    core.flags.logic(value);
    core.flags.change(AF | CF, if adjust { AF } else { 0 } | u64::from(carry));
}

/// DAA and DAS (`SUBTRACT`).
pub(crate) fn decimal<const SUBTRACT: bool>(core: &mut Core, _: &Op) -> Run {
    let old = core.reg::<u8>(RAX);
    let (old_carry, old_adjust) = (core.flags.cf(), core.flags.af());
    let adjust = old & 15 > 9 || old_adjust;
    let upper = old > 0x99 || old_carry;
    let amount = if adjust { 6 } else { 0_u8 } | if upper { 0x60 } else { 0 };
    let (value, borrow) = if SUBTRACT {
        (old.wrapping_sub(amount), old < 6)
    } else {
        (old.wrapping_add(amount), false)
    };
    core.set_reg(RAX, value);
    set(core, value, adjust, upper || SUBTRACT && adjust && borrow);
    Ok(())
}

/// AAA and AAS (`SUBTRACT`).
pub(crate) fn ascii<const SUBTRACT: bool>(core: &mut Core, _: &Op) -> Run {
    let old = core.reg::<u16>(RAX);
    let adjust = old & 15 > 9 || core.flags.af();
    let value = match (adjust, SUBTRACT) {
        (false, _) => old,
        (true, false) => old.wrapping_add(0x106),
        (true, true) => old.wrapping_sub(0x106),
    };
    core.set_reg(RAX, value & 0xff0f);
    let low = core.reg::<u8>(RAX);
    set(core, low, adjust, adjust);
    Ok(())
}

/// AAM.
pub(crate) fn aam(core: &mut Core, op: &Op) -> Run {
    let value = core.reg::<u8>(RAX);
    let base = op.imm as u8;
    let (Some(high), Some(low)) = (value.checked_div(base), value.checked_rem(base)) else {
        return core.raise(DE);
    };
    core.set_reg(HIGH | RAX, high);
    core.set_reg(RAX, low);
    set(core, low, false, false);
    Ok(())
}

/// AAD.
pub(crate) fn aad(core: &mut Core, op: &Op) -> Run {
    let high = core.reg::<u8>(HIGH | RAX);
    let value = core.reg::<u8>(RAX).wrapping_add(high.wrapping_mul(op.imm as u8));
    core.set_reg(RAX, u16::from(value));
    set(core, value, false, false);
    Ok(())
}
