//! Bit tests, scans, counts and the BMI sets.

use crate::core::{Core, Run};
use crate::flags::{AF, CF, OF, PF, SF, STATUS, ZF};
use crate::int::Int;
use crate::op::{MEMORY, Op};

/// BT (`KIND` 0), BTS (1), BTR (2) and BTC (3), with the number of the bit in a register: it
/// reaches beyond a memory operand.
pub(crate) fn test_reg<T: Int, const KIND: u8>(core: &mut Core, op: &Op) -> Run {
    let number = core.reg::<T>(op.src);
    if op.flags & MEMORY == 0 {
        return test::<T, KIND>(core, op, number.zx());
    }
    let units = number.sx().cast_signed().wrapping_shr(T::BITS.trailing_zeros());
    let distance = units.cast_unsigned().wrapping_mul(T::BYTES);
    let offset = core.offset(op).wrapping_add(distance) & Core::address_mask(op.flags);
    let linear = if core.is_64() {
        offset.wrapping_add(core.r(op.segment))
    } else {
        core.segment_address(op.segment_number(), offset, T::BYTES, KIND != 0)?
    };
    let bit = number.zx() & u64::from(T::BITS).wrapping_sub(1);
    memory::<T, KIND>(core, op, linear, bit)
}

/// As [`test_reg`], with the number of the bit in an immediate: modulo the width.
pub(crate) fn test_imm<T: Int, const KIND: u8>(core: &mut Core, op: &Op) -> Run {
    if op.flags & MEMORY == 0 {
        return test::<T, KIND>(core, op, op.imm);
    }
    let linear = core.linear(op, T::BYTES, KIND != 0)?;
    memory::<T, KIND>(core, op, linear, op.imm & u64::from(T::BITS).wrapping_sub(1))
}

fn change<T: Int, const KIND: u8>(value: T, mask: u64) -> T {
    T::of(match KIND {
        1 => value.zx() | mask,
        2 => value.zx() & !mask,
        3 => value.zx() ^ mask,
        _ => value.zx(),
    })
}

fn bit_mask(number: u64) -> u64 {
    1_u64.wrapping_shl((number & 63) as u32)
}

fn test<T: Int, const KIND: u8>(core: &mut Core, op: &Op, number: u64) -> Run {
    let mask = bit_mask(number & u64::from(T::BITS).wrapping_sub(1));
    let value = core.reg::<T>(op.dst);
    core.flags.set_carry(value.zx() & mask != 0);
    if KIND != 0 {
        core.set_reg(op.dst, change::<T, KIND>(value, mask));
    }
    Ok(())
}

fn memory<T: Int, const KIND: u8>(core: &mut Core, op: &Op, linear: u64, number: u64) -> Run {
    let mask = bit_mask(number);
    let value = if KIND == 0 {
        core.load::<T>(linear)?
    } else {
        core.update(linear, op.is_locked(), |value| change::<T, KIND>(value, mask))?.0
    };
    core.flags.set_carry(value.zx() & mask != 0);
    Ok(())
}

/// BSF and BSR (`REVERSE`). With a source of 0 the destination stays. CF, OF, SF, AF and PF, which
/// are undefined, are those of the source as if it had been tested.
pub(crate) fn scan<T: Int, const REVERSE: bool>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<T>(op)?;
    core.flags.logic(value);
    if value.zx() != 0 {
        let number = if REVERSE {
            63_u32.wrapping_sub(value.zx().leading_zeros())
        } else {
            value.zx().trailing_zeros()
        };
        core.set_reg(op.dst, T::of(u64::from(number)));
    }
    Ok(())
}

/// TZCNT and LZCNT (`LEADING`).
pub(crate) fn zeros<T: Int, const LEADING: bool>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<T>(op)?.zx();
    let number = if LEADING {
        value.leading_zeros().wrapping_sub(64_u32.wrapping_sub(T::BITS))
    } else {
        value.trailing_zeros().min(T::BITS)
    };
    core.set_reg(op.dst, T::of(u64::from(number)));
    let carry = if value == 0 { CF } else { 0 };
    let zero = if number == 0 { ZF } else { 0 };
    core.flags.change(STATUS, carry | zero);
    Ok(())
}

/// POPCNT.
pub(crate) fn popcnt<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<T>(op)?.zx();
    core.set_reg(op.dst, T::of(u64::from(value.count_ones())));
    core.flags.change(STATUS, if value == 0 { ZF } else { 0 });
    Ok(())
}

/// Flags of most BMI1 instructions: AF and PF are undefined.
fn set_flags<T: Int>(core: &mut Core, result: T, carry: bool) {
    let zero = if result.zx() == 0 { ZF } else { 0 };
    let sign = if result.sign() { SF } else { 0 };
    core.flags.change(CF | OF | ZF | SF | AF | PF, zero | sign | u64::from(carry));
}

/// ANDN.
pub(crate) fn andn<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.third::<T>(op)?;
    let result = T::of(!core.reg::<T>(op.src).zx() & value.zx());
    core.set_reg(op.dst, result);
    set_flags(core, result, false);
    Ok(())
}

/// BLSI (`KIND` 0), BLSMSK (1) and BLSR (2).
pub(crate) fn lowest<T: Int, const KIND: u8>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<T>(op)?.zx();
    let less = value.wrapping_sub(1);
    let result = T::of(match KIND {
        0 => value & value.wrapping_neg(),
        1 => value ^ less,
        _ => value & less,
    });
    core.set_reg(op.dst, result);
    set_flags(core, result, if KIND == 0 { value != 0 } else { value == 0 });
    Ok(())
}

/// BEXTR.
pub(crate) fn bextr<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<T>(op)?.zx();
    let control = core.r(op.imm as u8);
    let (start, length) = ((control & 0xff) as u32, (control >> 8 & 0xff) as u32);
    let shifted = if start >= T::BITS { 0 } else { value.wrapping_shr(start) };
    let result = T::of(shifted & crate::int::mask(length));
    core.set_reg(op.dst, result);
    core.flags.change(STATUS, if result.zx() == 0 { ZF } else { 0 });
    Ok(())
}

/// BZHI.
pub(crate) fn bzhi<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<T>(op)?.zx();
    let count = (core.r(op.imm as u8) & 0xff) as u32;
    let result = T::of(value & crate::int::mask(count));
    core.set_reg(op.dst, result);
    set_flags(core, result, count >= T::BITS);
    Ok(())
}

/// PDEP and PEXT (`EXTRACT`).
pub(crate) fn scatter<T: Int, const EXTRACT: bool>(core: &mut Core, op: &Op) -> Run {
    let mut mask = core.third::<T>(op)?.zx();
    let source = core.reg::<T>(op.src).zx();
    let mut result = 0;
    let mut bit = 1_u64;
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        let (from, to) = if EXTRACT { (lowest, bit) } else { (bit, lowest) };
        if source & from != 0 {
            result |= to;
        }
        mask &= mask.wrapping_sub(1);
        bit = bit.wrapping_shl(1);
    }
    core.set_reg(op.dst, T::of(result));
    Ok(())
}

/// RORX.
pub(crate) fn rorx<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<T>(op)?.zx();
    let count = op.imm as u32 & T::BITS.wrapping_sub(1);
    let left = if count == 0 { 0 } else { value.wrapping_shl(T::BITS.wrapping_sub(count)) };
    core.set_reg(op.dst, T::of(value.wrapping_shr(count) | left));
    Ok(())
}

/// SHLX (`KIND` 0), SHRX (1) and SARX (2).
pub(crate) fn shift<T: Int, const KIND: u8>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<T>(op)?;
    let count = core.r(op.imm as u8) as u32 & T::BITS.wrapping_sub(1);
    let result = match KIND {
        0 => value.zx().wrapping_shl(count),
        1 => value.zx().wrapping_shr(count),
        _ => value.sx().cast_signed().wrapping_shr(count).cast_unsigned(),
    };
    core.set_reg(op.dst, T::of(result));
    Ok(())
}

/// CRC32, with the polynomial of iSCSI.
pub(crate) fn crc32<D: Int, S: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<S>(op)?.zx();
    let mut crc = core.reg::<u32>(op.dst);
    for byte in value.to_le_bytes().into_iter().take(S::BYTES as usize) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let odd = crc & 1 != 0;
            crc >>= 1;
            if odd {
                crc ^= 0x82f6_3b78;
            }
        }
    }
    core.set_reg(op.dst, D::of(u64::from(crc)));
    Ok(())
}

/// RDPID.
pub(crate) fn rdpid(core: &mut Core, op: &Op) -> Run {
    core.set_r(op.dst, core.msrs.tsc_aux);
    Ok(())
}

/// RDRAND and RDSEED.
pub(crate) fn random<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.ask(|platform| platform.random());
    core.set_reg(op.dst, T::of(value));
    core.flags.set_status(CF);
    Ok(())
}

/// BOUND: the operands have sign.
pub(crate) fn bound<T: Int>(core: &mut Core, op: &Op) -> Run {
    let linear = core.linear(op, T::BYTES.wrapping_mul(2), false)?;
    let low = core.load::<T>(linear)?.sx().cast_signed();
    let high = core.load::<T>(core.wrap(linear.wrapping_add(T::BYTES)))?.sx().cast_signed();
    let index = core.reg::<T>(op.dst).sx().cast_signed();
    if index < low || index > high { core.raise(crate::exception::BR) } else { Ok(()) }
}
