//! Instructions on RFLAGS.

use crate::core::{Core, Run};
use crate::flags::{AC, AF, CF, DF, IF, IOPL, PF, RF, SF, VIF, VIP, VM, ZF};
use crate::op::Op;
use crate::registers::{HIGH, RAX, RSP};

/// CLC, STC (`VALUE` 1) and CMC (2).
pub(crate) fn carry<const VALUE: u8>(core: &mut Core, _: &Op) -> Run {
    let value = if VALUE == 2 { !core.flags.cf() } else { VALUE == 1 };
    core.flags.set_carry(value);
    Ok(())
}

/// CLD and STD.
pub(crate) fn direction<const VALUE: bool>(core: &mut Core, _: &Op) -> Run {
    core.flags.control = core.flags.control & !DF | if VALUE { DF } else { 0 };
    Ok(())
}

/// `true` if IOPL allows what IOPL is for.
pub(crate) fn has_io_privilege(core: &Core) -> bool {
    u64::from(core.cpl) <= (core.flags.control & IOPL) >> 12
}

/// CLI.
pub(crate) fn cli(core: &mut Core, _: &Op) -> Run {
    if core.is_protected() && !has_io_privilege(core) {
        return core.protection_fault(0);
    }
    core.flags.control &= !IF;
    Ok(())
}

/// STI. The next instruction is executed before any interrupt.
pub(crate) fn sti(core: &mut Core, op: &Op) -> Run {
    if core.is_protected() && !has_io_privilege(core) {
        return core.protection_fault(0);
    }
    if core.flags.control & IF == 0 {
        core.flags.control |= IF;
        core.events.shadow = true;
        core.attention = true;
    }
    core.finish(op)
}

/// CLAC and STAC.
pub(crate) fn access<const VALUE: bool>(core: &mut Core, op: &Op) -> Run {
    if core.cpl != 0 {
        return core.undefined();
    }
    core.flags.control = core.flags.control & !AC | if VALUE { AC } else { 0 };
    core.update_mode();
    core.finish(op)
}

/// LAHF.
pub(crate) fn lahf(core: &mut Core, _: &Op) -> Run {
    let flags = core.flags.get() as u8;
    core.set_reg(HIGH | RAX, flags);
    Ok(())
}

/// SAHF.
pub(crate) fn sahf(core: &mut Core, _: &Op) -> Run {
    let value = u64::from(core.reg::<u8>(HIGH | RAX));
    core.flags.change(CF | PF | AF | ZF | SF, value);
    Ok(())
}

/// PUSHF with operands of `SIZE` bytes.
pub(crate) fn pushf<const SIZE: u64>(core: &mut Core, _: &Op) -> Run {
    if core.is_v86() && !has_io_privilege(core) {
        return core.protection_fault(0);
    }
    let flags = core.flags.get() & !(VM | RF);
    core.push(SIZE, flags)
}

/// POPF with operands of `SIZE` bytes.
pub(crate) fn popf<const SIZE: u64>(core: &mut Core, op: &Op) -> Run {
    if core.is_v86() && !has_io_privilege(core) {
        return core.protection_fault(0);
    }
    let before = core.r(RSP);
    let value = core.pop(SIZE)?;
    debug_assert!(before != core.r(RSP), "a pop moves the stack pointer");
    let mut allowed = core.changeable_flags(SIZE) & !(RF | VIF | VIP);
    if core.is_v86() {
        allowed &= !IOPL;
    }
    let old = core.flags.get() & !RF;
    core.set_flags(old & !allowed | value & allowed);
    core.finish(op)
}
