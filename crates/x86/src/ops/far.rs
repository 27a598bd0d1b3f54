//! Segment registers, far transfers, software interrupts, and stack frames.

use crate::core::{Core, Run, Stop};
use crate::debug::SINGLE_STEP;
use crate::exception::{self};
use crate::exit::Exit;
use crate::fault::Source;
use crate::flags::IOPL;
use crate::int::Int;
use crate::op::Op;
use crate::registers::{RBP, RSP, SS};

/// MOV to a segment register.
pub(crate) fn mov_to_segment(core: &mut Core, op: &Op) -> Run {
    let selector = core.second::<u16>(op)?;
    core.load_segment(op.dst, selector)?;
    after_load(core, op)
}

/// Nothing interrupts between a load of SS and the next instruction (Intel SDM vol. 3, 6.8.3).
fn after_load(core: &mut Core, op: &Op) -> Run {
    if op.dst == SS {
        core.events.shadow = true;
        core.events.ss_shadow = true;
        core.attention = true;
    }
    core.finish(op)
}

/// MOV from a segment register.
pub(crate) fn mov_from_segment<T: Int>(core: &mut Core, op: &Op) -> Run {
    let selector = core.segment(op.src).selector;
    if op.flags & crate::op::MEMORY != 0 {
        return core.set_first(op, selector);
    }
    core.set_reg(op.dst, T::of(u64::from(selector)));
    Ok(())
}

/// PUSH of a segment register.
pub(crate) fn push_segment<T: Int>(core: &mut Core, op: &Op) -> Run {
    let selector = core.segment(op.dst).selector;
    core.push(T::BYTES, u64::from(selector))
}

/// POP of a segment register.
pub(crate) fn pop_segment<T: Int>(core: &mut Core, op: &Op) -> Run {
    let before = core.r(RSP);
    let selector = core.pop(T::BYTES)? as u16;
    core.load_segment(op.dst, selector).inspect_err(|_| core.set_r(RSP, before))?;
    after_load(core, op)
}

/// LDS, LES, LSS, LFS and LGS. The number of the segment register is in the immediate.
pub(crate) fn load_pointer<T: Int>(core: &mut Core, op: &Op) -> Run {
    let linear = core.linear(op, T::BYTES.wrapping_add(2), false)?;
    let offset = core.load::<T>(linear)?;
    let selector = core.load::<u16>(core.wrap(linear.wrapping_add(T::BYTES)))?;
    core.load_segment(op.imm as u8, selector)?;
    core.set_reg(op.dst, offset);
    core.finish(op)
}

/// A far pointer in memory.
fn far_pointer<T: Int>(core: &mut Core, op: &Op) -> Run<(u16, u64)> {
    let linear = core.linear(op, T::BYTES.wrapping_add(2), false)?;
    let offset = core.load::<T>(linear)?.zx();
    let selector = core.load::<u16>(core.wrap(linear.wrapping_add(T::BYTES)))?;
    Ok((selector, offset))
}

/// JMP to a far pointer in memory.
pub(crate) fn jmp_memory<T: Int>(core: &mut Core, op: &Op) -> Run {
    let (selector, offset) = far_pointer::<T>(core, op)?;
    core.far_jump(selector, offset)?;
    Err(Stop::Jump)
}

/// JMP to the far address in the immediate; the selector is in the displacement.
pub(crate) fn jmp_immediate(core: &mut Core, op: &Op) -> Run {
    core.far_jump(op.disp as u16, op.imm)?;
    Err(Stop::Jump)
}

/// CALL of a far pointer in memory.
pub(crate) fn call_memory<T: Int>(core: &mut Core, op: &Op) -> Run {
    let (selector, offset) = far_pointer::<T>(core, op)?;
    let next = core.next_rip(op);
    core.far_call(selector, offset, T::BYTES, next)?;
    Err(Stop::Jump)
}

/// CALL of the far address in the immediate; the selector is in the displacement.
pub(crate) fn call_immediate<T: Int>(core: &mut Core, op: &Op) -> Run {
    let next = core.next_rip(op);
    core.far_call(op.disp as u16, op.imm, T::BYTES, next)?;
    Err(Stop::Jump)
}

/// RETF; the immediate is the number of bytes to remove.
pub(crate) fn ret<T: Int>(core: &mut Core, op: &Op) -> Run {
    core.far_return(T::BYTES, op.imm)?;
    Err(Stop::Jump)
}

/// IRET.
pub(crate) fn iret<T: Int>(core: &mut Core, _: &Op) -> Run {
    core.interrupt_return(T::BYTES)?;
    Err(Stop::Jump)
}

/// Delivers a software interrupt, after which the program continues with the next instruction.
fn software(core: &mut Core, op: &Op, vector: u8) -> Run {
    let rip = core.rip_of(op);
    core.rip = core.next_rip(op);
    core.suppress_trap();
    match core.interrupt(vector, None, Source::Software) {
        Ok(()) => Err(Stop::Jump),
        Err(stop) => {
            core.rip = rip;
            Err(stop)
        }
    }
}

/// INT n.
pub(crate) fn int(core: &mut Core, op: &Op) -> Run {
    if core.is_v86() && core.flags.control & IOPL != IOPL {
        return core.protection_fault(0);
    }
    software(core, op, op.imm as u8)
}

/// INT3.
pub(crate) fn int3(core: &mut Core, op: &Op) -> Run {
    if core.intercept_breakpoint {
        core.exit = Exit::Debug { rip: core.rip_of(op), vector: exception::BP, dr6: 0 };
        return Err(Stop::Exit);
    }
    software(core, op, exception::BP)
}

/// INT1.
pub(crate) fn int1(core: &mut Core, op: &Op) -> Run {
    let rip = core.rip_of(op);
    core.rip = core.next_rip(op);
    core.suppress_trap();
    // That of a load of SS before it is lost.
    core.events.debug &= !SINGLE_STEP;
    match core.interrupt(exception::DB, None, Source::Hardware) {
        Ok(()) => Err(Stop::Jump),
        Err(stop) => {
            core.rip = rip;
            Err(stop)
        }
    }
}

/// INTO.
pub(crate) fn into(core: &mut Core, op: &Op) -> Run {
    if !core.flags.of() {
        return Ok(());
    }
    software(core, op, exception::OF)
}

/// ENTER. The size is in the displacement, the nesting level in the immediate.
pub(crate) fn enter<T: Int>(core: &mut Core, op: &Op) -> Run {
    let level = op.imm & 31;
    let mut stack = core.stack();
    stack.is_privileged = false;
    let base = core.r(RBP);
    core.push_on(&mut stack, T::BYTES, base)?;
    let frame = stack.pointer;
    for index in 1..level {
        let mut display = stack;
        display.pointer = base.wrapping_sub(index.wrapping_mul(T::BYTES));
        let value = core.pop_from(&mut display, T::BYTES)?;
        core.push_on(&mut stack, T::BYTES, value)?;
    }
    if level > 0 {
        core.push_on(&mut stack, T::BYTES, frame)?;
    }
    let pointer = stack.pointer.wrapping_sub(op.disp) & stack.mask;
    // A page fault of the frame's end is one of this instruction.
    let mut end = stack;
    end.pointer = pointer;
    core.pop_from(&mut end, T::BYTES)?;
    core.set_reg(RBP, T::of(frame));
    core.set_r(RSP, stack.pointer & !stack.mask | pointer);
    Ok(())
}

/// LEAVE.
pub(crate) fn leave<T: Int>(core: &mut Core, _: &Op) -> Run {
    let mut stack = core.stack();
    stack.is_privileged = false;
    stack.pointer = stack.pointer & !stack.mask | core.r(RBP) & stack.mask;
    let base = core.pop_from(&mut stack, T::BYTES)?;
    core.set_r(RSP, stack.pointer);
    core.set_reg(RBP, T::of(base));
    Ok(())
}

/// PUSHA.
pub(crate) fn pusha<T: Int>(core: &mut Core, _: &Op) -> Run {
    let mut stack = core.stack();
    stack.is_privileged = false;
    for number in 0..8 {
        let value = core.reg::<T>(number).zx();
        core.push_on(&mut stack, T::BYTES, value)?;
    }
    core.set_r(RSP, stack.pointer);
    Ok(())
}

/// POPA.
pub(crate) fn popa<T: Int>(core: &mut Core, _: &Op) -> Run {
    let mut stack = core.stack();
    let mut values = [0; 8];
    for value in values.iter_mut().rev() {
        *value = core.pop_from(&mut stack, T::BYTES)?;
    }
    for (number, value) in (0..8).zip(values).filter(|(number, _)| *number != RSP) {
        core.set_reg(number, T::of(value));
    }
    core.set_r(RSP, stack.pointer);
    Ok(())
}
