//! Moves between registers and memory.

use crate::core::{Core, Run};
use crate::int::Int;
use crate::op::{MEMORY, Op};
use crate::registers::{RAX, RDX, RSP};

pub(crate) fn mov_rr<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.reg::<T>(op.src);
    core.set_reg(op.dst, value);
    Ok(())
}

pub(crate) fn mov_ri<T: Int>(core: &mut Core, op: &Op) -> Run {
    core.set_reg(op.dst, T::of(op.imm));
    Ok(())
}

pub(crate) fn mov_rm<T: Int>(core: &mut Core, op: &Op) -> Run {
    let linear = core.linear(op, T::BYTES, false)?;
    let value = core.load::<T>(linear)?;
    core.set_reg(op.dst, value);
    Ok(())
}

pub(crate) fn mov_mr<T: Int>(core: &mut Core, op: &Op) -> Run {
    let linear = core.linear(op, T::BYTES, true)?;
    let value = core.reg::<T>(op.src);
    core.store(linear, value)
}

pub(crate) fn mov_mi<T: Int>(core: &mut Core, op: &Op) -> Run {
    let linear = core.linear(op, T::BYTES, true)?;
    core.store(linear, T::of(op.imm))
}

/// MOVZX.
pub(crate) fn movzx<D: Int, S: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<S>(op)?;
    core.set_reg(op.dst, D::of(value.zx()));
    Ok(())
}

/// MOVSX and MOVSXD.
pub(crate) fn movsx<D: Int, S: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<S>(op)?;
    core.set_reg(op.dst, D::of(value.sx()));
    Ok(())
}

pub(crate) fn lea<T: Int>(core: &mut Core, op: &Op) -> Run {
    let offset = core.offset(op);
    core.set_reg(op.dst, T::of(offset));
    Ok(())
}

/// CMOVcc. The operand is read whatever the condition.
pub(crate) fn cmov<T: Int, const C: u8>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<T>(op)?;
    let value = if core.flags.condition(C) { value } else { core.reg(op.dst) };
    core.set_reg(op.dst, value);
    Ok(())
}

/// SETcc.
pub(crate) fn setcc<const C: u8>(core: &mut Core, op: &Op) -> Run {
    let value = u8::from(core.flags.condition(C));
    core.set_first(op, value)
}

/// PUSH of a register in 64-bit mode.
pub(crate) fn push_r(core: &mut Core, op: &Op) -> Run {
    let value = core.r(op.dst);
    let pointer = core.r(RSP).wrapping_sub(8);
    core.store(pointer, value)?;
    core.set_r(RSP, pointer);
    Ok(())
}

/// PUSH of an immediate in 64-bit mode.
pub(crate) fn push_i(core: &mut Core, op: &Op) -> Run {
    let pointer = core.r(RSP).wrapping_sub(8);
    core.store(pointer, op.imm)?;
    core.set_r(RSP, pointer);
    Ok(())
}

/// POP of a register in 64-bit mode.
pub(crate) fn pop_r(core: &mut Core, op: &Op) -> Run {
    let pointer = core.r(RSP);
    let value = core.load(pointer)?;
    core.set_r(RSP, pointer.wrapping_add(8));
    core.set_r(op.dst, value);
    Ok(())
}

/// PUSH of any operand but a segment register.
pub(crate) fn push<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.first::<T>(op)?;
    core.push(T::BYTES, value.zx())
}

/// PUSH of an immediate outside of 64-bit mode, or of 16 bits.
pub(crate) fn push_imm<T: Int>(core: &mut Core, op: &Op) -> Run {
    core.push(T::BYTES, T::of(op.imm).zx())
}

/// POP of any operand but a segment register. The address is computed with the new RSP.
pub(crate) fn pop<T: Int>(core: &mut Core, op: &Op) -> Run {
    let before = core.r(RSP);
    let value = T::of(core.pop(T::BYTES)?);
    core.set_first(op, value).inspect_err(|_| core.set_r(RSP, before))
}

/// XCHG, always locked where it is with memory.
pub(crate) fn xchg<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.reg::<T>(op.src);
    if op.flags & MEMORY != 0 {
        let linear = core.linear(op, T::BYTES, true)?;
        let (old, _) = core.update(linear, true, |_| value)?;
        core.set_reg(op.src, old);
    } else {
        let old = core.reg::<T>(op.dst);
        core.set_reg(op.dst, value);
        core.set_reg(op.src, old);
    }
    Ok(())
}

/// XADD.
pub(crate) fn xadd<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.reg::<T>(op.src);
    let (old, new) = core.update_first(op, |a: T| a.add_carry(value, false).0)?;
    core.flags.added(old, value, new, new < old);
    if op.flags & MEMORY == 0 {
        core.set_reg(op.src, old);
        core.set_reg(op.dst, new);
    } else {
        core.set_reg(op.src, old);
    }
    Ok(())
}

/// CMPXCHG. The destination is always written.
pub(crate) fn cmpxchg<T: Int>(core: &mut Core, op: &Op) -> Run {
    let (expected, value) = (core.reg::<T>(RAX), core.reg(op.src));
    if op.flags & MEMORY != 0 {
        let linear = core.linear(op, T::BYTES, true)?;
        let (old, _) =
            core.update(linear, op.is_locked(), |old| if old == expected { value } else { old })?;
        compare(core, expected, old);
        return Ok(());
    }
    let old = core.reg::<T>(op.dst);
    compare(core, expected, old);
    if old == expected {
        core.set_reg(op.dst, value);
    }
    Ok(())
}

/// Sets flags as CMPXCHG does, and the accumulator if the values differ.
#[inline(always)]
fn compare<T: Int>(core: &mut Core, expected: T, old: T) {
    let (difference, borrow) = expected.sub_borrow(old, false);
    core.flags.added(expected, old, difference, borrow);
    if old != expected {
        core.set_reg(RAX, old);
    }
}

/// CMPXCHG8B.
pub(crate) fn cmpxchg8b(core: &mut Core, op: &Op) -> Run {
    let linear = core.linear(op, 8, true)?;
    let pair = |core: &Core, low, high| core.r(low) & 0xffff_ffff | core.r(high) << 32;
    let expected = pair(core, RAX, RDX);
    let value = pair(core, crate::registers::RBX, crate::registers::RCX);
    let (old, _) =
        core.update(linear, op.is_locked(), |old| if old == expected { value } else { old })?;
    if old != expected {
        core.set_r(RAX, old & 0xffff_ffff);
        core.set_r(RDX, old >> 32);
    }
    core.flags.change(crate::flags::ZF, if old == expected { crate::flags::ZF } else { 0 });
    Ok(())
}

/// CMPXCHG16B.
pub(crate) fn cmpxchg16b(core: &mut Core, op: &Op) -> Run {
    let linear = core.linear(op, 16, true)?;
    if linear & 15 != 0 {
        return core.protection_fault(0);
    }
    let pair = |core: &Core, low, high| u128::from(core.r(low)) | u128::from(core.r(high)) << 64;
    let expected = pair(core, RAX, RDX);
    let value = pair(core, crate::registers::RBX, crate::registers::RCX);
    let old = core.exchange_16(linear, expected, value)?;
    if old != expected {
        core.set_r(RAX, old as u64);
        core.set_r(RDX, (old >> 64) as u64);
    }
    core.flags.change(crate::flags::ZF, if old == expected { crate::flags::ZF } else { 0 });
    Ok(())
}

/// BSWAP. Of 16 bits it is undefined; here it gives 0, as on the processors there are.
pub(crate) fn bswap<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.reg::<T>(op.dst);
    core.set_reg(op.dst, if T::BYTES == 2 { T::of(0) } else { value.swap() });
    Ok(())
}

/// MOVBE from memory.
pub(crate) fn movbe_load<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.second::<T>(op)?;
    core.set_reg(op.dst, value.swap());
    Ok(())
}

/// MOVBE to memory.
pub(crate) fn movbe_store<T: Int>(core: &mut Core, op: &Op) -> Run {
    let value = core.reg::<T>(op.src);
    core.set_first(op, value.swap())
}

/// CBW, CWDE and CDQE: from half the size to `T`.
pub(crate) fn extend<T: Int>(core: &mut Core, _: &Op) -> Run {
    let half = crate::int::sign_extend(core.r(RAX), T::BYTES >> 1);
    core.set_reg(RAX, T::of(half));
    Ok(())
}

/// CWD, CDQ and CQO.
pub(crate) fn spread<T: Int>(core: &mut Core, _: &Op) -> Run {
    let sign = core.reg::<T>(RAX).sign();
    core.set_reg(RDX, T::of(if sign { u64::MAX } else { 0 }));
    Ok(())
}

/// XLAT.
pub(crate) fn xlat(core: &mut Core, op: &Op) -> Run {
    let index = core.reg::<u8>(RAX).zx();
    let offset = core.offset(op).wrapping_add(index) & Core::address_mask(op.flags);
    let linear = if op.flags & crate::op::FLAT != 0 {
        offset.wrapping_add(core.r(op.segment))
    } else {
        core.segment_address(op.segment_number(), offset, 1, false)?
    };
    let value = core.load::<u8>(linear)?;
    core.set_reg(RAX, value);
    Ok(())
}
