//! Near jumps, calls and returns.

use crate::access::is_canonical;
use crate::core::{Core, Run};
use crate::int::Int;
use crate::op::{ADDRESS_16, ADDRESS_32, Op};
use crate::registers::{CS, RCX, RIP, RSP};

/// Continues at `offset` from the block's start, with the bits that RIP has at this operand size
/// (in the displacement).
#[inline(always)]
fn go(core: &mut Core, op: &Op, offset: u64) {
    core.rip = core.r(RIP).wrapping_add(offset) & op.disp;
}

/// End of a block without a branch.
pub(crate) fn end(core: &mut Core, op: &Op) -> Run {
    core.rip = core.r(RIP).wrapping_add(u64::from(op.end)) & op.imm;
    core.link = 0;
    Ok(())
}

/// Jcc.
pub(crate) fn jcc<const C: u8>(core: &mut Core, op: &Op) -> Run {
    let is_taken = core.flags.condition(C);
    core.link = usize::from(is_taken);
    let (offset, mask) = if is_taken { (op.imm, op.disp) } else { (u64::from(op.end), u64::MAX) };
    core.rip = core.r(RIP).wrapping_add(offset) & mask;
    Ok(())
}

/// JMP to an address relative to RIP.
pub(crate) fn jmp(core: &mut Core, op: &Op) -> Run {
    core.link = 1;
    go(core, op, op.imm);
    Ok(())
}

/// LOOP (`KIND` 2), LOOPE (1), LOOPNE (0) and JRCXZ (3).
pub(crate) fn count<const KIND: u8>(core: &mut Core, op: &Op) -> Run {
    let size = match op.flags & (ADDRESS_16 | ADDRESS_32) {
        0 => 8,
        ADDRESS_32 => 4,
        _ => 2,
    };
    let count = core.sized(RCX, size);
    let is_taken = if KIND == 3 {
        count == 0
    } else {
        let count = count.wrapping_sub(1);
        core.set_sized(RCX, size, count);
        let is_zero = core.sized(RCX, size) == 0;
        !is_zero && (KIND == 2 || core.flags.zf() == (KIND == 1))
    };
    core.link = usize::from(is_taken);
    let (offset, mask) = if is_taken { (op.imm, op.disp) } else { (u64::from(op.end), u64::MAX) };
    core.rip = core.r(RIP).wrapping_add(offset) & mask;
    Ok(())
}

/// CALL in 64-bit mode to an address relative to RIP.
pub(crate) fn call(core: &mut Core, op: &Op) -> Run {
    let next = core.r(RIP).wrapping_add(u64::from(op.end));
    let pointer = core.r(RSP).wrapping_sub(8);
    core.store(pointer, next)?;
    core.set_r(RSP, pointer);
    core.link = 1;
    go(core, op, op.imm);
    Ok(())
}

/// RET in 64-bit mode; the immediate is the number of bytes to remove.
pub(crate) fn ret(core: &mut Core, op: &Op) -> Run {
    let pointer = core.r(RSP);
    let target = core.load::<u64>(pointer)?;
    if !is_canonical(target) {
        return core.protection_fault(0);
    }
    core.set_r(RSP, pointer.wrapping_add(8).wrapping_add(op.imm));
    core.rip = target;
    core.link = 1;
    Ok(())
}

/// JMP to the address in a register or memory.
pub(crate) fn jmp_to<T: Int>(core: &mut Core, op: &Op) -> Run {
    let target = core.first::<T>(op)?.zx();
    check(core, target)?;
    core.rip = target;
    core.link = 1;
    Ok(())
}

/// CALL of the address in a register or memory.
pub(crate) fn call_to<T: Int>(core: &mut Core, op: &Op) -> Run {
    let target = core.first::<T>(op)?.zx();
    check(core, target)?;
    let next = core.next_rip(op);
    core.push(T::BYTES, next)?;
    core.rip = target;
    core.link = 1;
    Ok(())
}

/// CALL outside of 64-bit mode to an address relative to EIP.
pub(crate) fn call_sized<T: Int>(core: &mut Core, op: &Op) -> Run {
    let target = core.r(RIP).wrapping_add(op.imm) & op.disp;
    check(core, target)?;
    let next = core.next_rip(op);
    core.push(T::BYTES, next)?;
    core.rip = target;
    core.link = 1;
    Ok(())
}

/// RET outside of 64-bit mode; the immediate is the number of bytes to remove.
pub(crate) fn ret_sized<T: Int>(core: &mut Core, op: &Op) -> Run {
    let mut stack = core.stack();
    let target = core.pop_from(&mut stack, T::BYTES)?;
    check(core, target)?;
    let pointer = stack.pointer.wrapping_add(op.imm);
    core.set_r(RSP, stack.pointer & !stack.mask | pointer & stack.mask);
    core.rip = target;
    core.link = 1;
    Ok(())
}

/// Checks the target of a branch.
#[inline(always)]
fn check(core: &mut Core, target: u64) -> Run {
    if core.is_64() {
        return if is_canonical(target) { Ok(()) } else { core.protection_fault(0) };
    }
    let code = *core.segment(CS);
    core.check_target(&code, target)
}
