//! SYSCALL, SYSRET, SYSENTER and SYSEXIT (Intel SDM vol. 2; AMD APM vol. 3).

use nerite_arch::Segment;

use crate::access::is_canonical;
use crate::core::{Core, Mode, Run};
use crate::debug::SINGLE_STEP;
use crate::flags::{ALL, IF, RF, TF, VM};
use crate::op::Op;
use crate::registers::{EFER_SCE, RCX, RDX, RSP, SS};

/// A flat code segment.
const fn code(selector: u16, level: u8, mode: Mode) -> Segment {
    Segment {
        base: 0,
        limit: u32::MAX,
        selector,
        kind: 11,
        present: true,
        dpl: level,
        db: matches!(mode, Mode::Bits32),
        s: true,
        l: matches!(mode, Mode::Bits64),
        g: true,
        avl: false,
        unusable: false,
    }
}

/// A flat data segment.
const fn data(selector: u16, level: u8) -> Segment {
    Segment { kind: 3, db: true, l: false, ..code(selector, level, Mode::Bits32) }
}

pub(crate) fn syscall(core: &mut Core, op: &Op) -> Run {
    if core.efer & EFER_SCE == 0 || !core.is_protected() {
        return core.undefined();
    }
    let next = core.next_rip(op);
    let selector = (core.msrs.star >> 32) as u16;
    let flags = core.flags.get();
    if core.is_long() {
        // A trap follows if TF is set at the end.
        if core.msrs.sfmask & TF != 0 {
            core.suppress_trap();
        }
        core.set_r(RCX, next);
        core.set_r(11, flags & !RF);
        core.rip = if core.is_64() { core.msrs.lstar } else { core.msrs.cstar };
        *core.segment_mut(SS) = data(selector.wrapping_add(8) & !3, 0);
        core.set_code_segment(code(selector & !3, 0, Mode::Bits64), 0);
        let mask = core.msrs.sfmask;
        core.set_flags(flags & !(mask | RF));
    } else {
        core.set_r(RCX, next);
        core.rip = core.msrs.star & 0xffff_ffff;
        *core.segment_mut(SS) = data(selector.wrapping_add(8) & !3, 0);
        core.set_code_segment(code(selector & !3, 0, Mode::Bits32), 0);
        core.set_flags(flags & !(IF | VM | RF));
    }
    Err(crate::core::Stop::Jump)
}

pub(crate) fn sysret<const WIDE: bool>(core: &mut Core, _: &Op) -> Run {
    if core.efer & EFER_SCE == 0 || !core.is_protected() {
        return core.undefined();
    }
    let target = core.r(RCX);
    if core.cpl != 0 || WIDE && !is_canonical(target) {
        return core.protection_fault(0);
    }
    let selector = (core.msrs.star >> 48) as u16;
    let flags = core.flags.get();
    let was_long = core.is_64();
    *core.segment_mut(SS) = data(selector.wrapping_add(8) | 3, 3);
    if WIDE {
        core.rip = target;
        core.set_code_segment(code(selector.wrapping_add(16) | 3, 3, Mode::Bits64), 3);
    } else {
        core.rip = target & 0xffff_ffff;
        core.set_code_segment(code(selector | 3, 3, Mode::Bits32), 3);
    }
    if was_long {
        let wanted = core.r(11);
        // A trap follows if TF is set at the end.
        core.suppress_trap();
        if wanted & TF != 0 {
            core.events.debug |= SINGLE_STEP;
        }
        core.set_flags(wanted & ALL & !(RF | VM));
    } else {
        core.set_flags(flags | IF);
    }
    Err(crate::core::Stop::Jump)
}

pub(crate) fn sysenter(core: &mut Core, _: &Op) -> Run {
    let selector = core.msrs.sysenter_cs as u16;
    if !core.is_protected() || selector & !3 == 0 {
        return core.protection_fault(0);
    }
    let flags = core.flags.get() & !(VM | IF | RF);
    let mode = if core.is_long() { Mode::Bits64 } else { Mode::Bits32 };
    let width = if core.is_long() { u64::MAX } else { 0xffff_ffff };
    core.set_r(RSP, core.msrs.sysenter_esp & width);
    core.rip = core.msrs.sysenter_eip & width;
    *core.segment_mut(SS) = data(selector.wrapping_add(8) & !3, 0);
    core.flags.control &= !VM;
    core.set_code_segment(code(selector & !3, 0, mode), 0);
    core.set_flags(flags);
    Err(crate::core::Stop::Jump)
}

pub(crate) fn sysexit<const WIDE: bool>(core: &mut Core, _: &Op) -> Run {
    let selector = core.msrs.sysenter_cs as u16;
    if !core.is_protected() || selector & !3 == 0 || core.cpl != 0 {
        return core.protection_fault(0);
    }
    let (rip, rsp) = (core.r(RDX), core.r(RCX));
    if WIDE && !(is_canonical(rip) && is_canonical(rsp)) {
        return core.protection_fault(0);
    }
    let (offset, mode, width) =
        if WIDE { (32, Mode::Bits64, u64::MAX) } else { (16, Mode::Bits32, 0xffff_ffff) };
    let selector = selector.wrapping_add(offset) | 3;
    core.set_r(RSP, rsp & width);
    core.rip = rip & width;
    *core.segment_mut(SS) = data(selector.wrapping_add(8), 3);
    core.set_code_segment(code(selector, 3, mode), 3);
    core.attention = true;
    Err(crate::core::Stop::Jump)
}
