//! Instructions of operating systems.

use nerite_arch::{DescriptorTable, Segment};

use crate::access::is_canonical;
use crate::core::{Core, Run, Stop};
use crate::exception;
use crate::exit::Exit;
use crate::flags::ZF;
use crate::int::{Int, mask};
use crate::op::{MEMORY, Op};
use crate::registers::{CR4_FSGSBASE, CR4_OSXSAVE, CR4_TSD, CR4_UMIP, FS, GS, RAX, RBX, RCX, RDX};
use crate::segment::{BUSY, LDT, SELECTOR, TSS, TSS_16};

/// An instruction that does nothing here: hints, prefetches, cache control that any program may
/// use.
pub(crate) fn nothing(_: &mut Core, _: &Op) -> Run {
    Ok(())
}

/// MFENCE. Stores and loads of a guest are those of this thread.
pub(crate) fn mfence(_: &mut Core, _: &Op) -> Run {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(())
}

/// PAUSE. The block ends, so that a kick is seen soon.
pub(crate) fn pause(core: &mut Core, op: &Op) -> Run {
    core.ask(|platform| platform.pause());
    core.finish(op)
}

/// An instruction that there is not.
pub(crate) fn undefined(core: &mut Core, _: &Op) -> Run {
    core.undefined()
}

/// An instruction that exists, but not here. It is reported once.
pub(crate) fn unimplemented(core: &mut Core, op: &Op) -> Run {
    if let Some(code) = op.code
        && core.reported.insert(code as u32)
    {
        let rip = core.rip_of(op);
        log::warn!("x86: instruction {code:?} is not implemented (rip {rip:#x})");
    }
    core.undefined()
}

/// An instruction of more than 15 bytes.
pub(crate) fn too_long(core: &mut Core, _: &Op) -> Run {
    core.protection_fault(0)
}

fn privileged(core: &mut Core) -> Run {
    if core.cpl == 0 { Ok(()) } else { core.protection_fault(0) }
}

/// #GP for unprivileged programs if CR4.UMIP is set.
pub(crate) fn check_umip(core: &mut Core) -> Run {
    if core.cr4 & CR4_UMIP != 0 && core.cpl != 0 { core.protection_fault(0) } else { Ok(()) }
}

/// HLT.
pub(crate) fn hlt(core: &mut Core, op: &Op) -> Run {
    privileged(core)?;
    core.exit = Exit::Halt;
    core.rip = core.next_rip(op);
    Err(Stop::JumpExit)
}

/// INVD, WBINVD.
pub(crate) fn wbinvd(core: &mut Core, _: &Op) -> Run {
    privileged(core)
}

/// CLFLUSH: faults as a load of a byte.
pub(crate) fn clflush(core: &mut Core, op: &Op) -> Run {
    let linear = core.linear(op, 1, false)?;
    core.resolve(linear, false).map(drop)
}

/// INVLPG.
pub(crate) fn invlpg(core: &mut Core, op: &Op) -> Run {
    privileged(core)?;
    let base =
        if core.is_64() { core.r(op.segment) } else { core.segment(op.segment_number()).base };
    let linear = core.wrap(core.offset(op).wrapping_add(base));
    core.tlb.flush_page(linear);
    core.fetch.flush();
    core.epoch = core.epoch.wrapping_add(1);
    core.finish(op)
}

/// RDTSC, and RDTSCP (`WITH_AUX`).
pub(crate) fn rdtsc<const WITH_AUX: bool>(core: &mut Core, op: &Op) -> Run {
    if core.cr4 & CR4_TSD != 0 && core.cpl != 0 {
        return core.protection_fault(0);
    }
    let tsc = core.tsc(op);
    core.set_r(RAX, tsc & 0xffff_ffff);
    core.set_r(RDX, tsc >> 32);
    if WITH_AUX {
        core.set_r(RCX, core.msrs.tsc_aux);
    }
    Ok(())
}

/// RDPMC: there are no counters.
pub(crate) fn rdpmc(core: &mut Core, _: &Op) -> Run {
    core.protection_fault(0)
}

/// SWAPGS.
pub(crate) fn swapgs(core: &mut Core, _: &Op) -> Run {
    privileged(core)?;
    let base = core.segment(GS).base;
    core.segment_mut(GS).base = std::mem::replace(&mut core.msrs.kernel_gs_base, base);
    core.update_mode();
    Ok(())
}

/// RDFSBASE and RDGSBASE.
pub(crate) fn read_base<T: Int, const SEGMENT: u8>(core: &mut Core, op: &Op) -> Run {
    if core.cr4 & CR4_FSGSBASE == 0 {
        return core.undefined();
    }
    let base = core.segment(SEGMENT).base;
    core.set_reg(op.dst, T::of(base));
    Ok(())
}

/// WRFSBASE and WRGSBASE.
pub(crate) fn write_base<T: Int, const SEGMENT: u8>(core: &mut Core, op: &Op) -> Run {
    if core.cr4 & CR4_FSGSBASE == 0 {
        return core.undefined();
    }
    let base = core.reg::<T>(op.dst).zx();
    if !is_canonical(base) {
        return core.protection_fault(0);
    }
    debug_assert!(SEGMENT == FS || SEGMENT == GS, "only these have a base in 64-bit mode");
    core.segment_mut(SEGMENT).base = base;
    core.update_mode();
    Ok(())
}

/// XGETBV.
pub(crate) fn xgetbv(core: &mut Core, _: &Op) -> Run {
    if core.cr4 & CR4_OSXSAVE == 0 {
        return core.undefined();
    }
    if core.reg::<u32>(RCX) != 0 {
        return core.protection_fault(0);
    }
    let value = core.xcr0;
    core.set_r(RAX, value & 0xffff_ffff);
    core.set_r(RDX, value >> 32);
    Ok(())
}

/// XSETBV.
pub(crate) fn xsetbv(core: &mut Core, op: &Op) -> Run {
    if core.cr4 & CR4_OSXSAVE == 0 {
        return core.undefined();
    }
    let value = core.r(RDX) << 32 | core.r(RAX) & 0xffff_ffff;
    let is_valid = value & 1 != 0 && value & !core.cpuid.xcr0 == 0 && value & 6 != 4;
    if core.cpl != 0 || core.reg::<u32>(RCX) != 0 || !is_valid {
        return core.protection_fault(0);
    }
    core.xcr0 = value;
    core.update_mode();
    core.finish(op)
}

/// LGDT and LIDT (`IDT`) with a base of `T`, of which 16-bit code uses 24 bits.
pub(crate) fn load_table<T: Int, const IDT: bool>(core: &mut Core, op: &Op) -> Run {
    privileged(core)?;
    let size = if T::BYTES == 8 { 10 } else { 6 };
    let linear = core.linear(op, size, false)?;
    let limit = core.load::<u16>(linear)?;
    let base_at = core.wrap(linear.wrapping_add(2));
    let base = match T::BYTES {
        8 => core.load::<u64>(base_at)?,
        4 => core.load::<u32>(base_at)?.zx(),
        _ => core.load::<u32>(base_at)?.zx() & mask(24),
    };
    if !is_canonical(base) {
        return core.protection_fault(0);
    }
    let table = DescriptorTable { base, limit };
    if IDT {
        core.idt = table;
    } else {
        core.gdt = table;
    }
    core.finish(op)
}

/// SGDT and SIDT (`IDT`).
pub(crate) fn store_table<T: Int, const IDT: bool>(core: &mut Core, op: &Op) -> Run {
    check_umip(core)?;
    let table = if IDT { core.idt } else { core.gdt };
    let size = if T::BYTES == 8 { 10 } else { 6 };
    let linear = core.linear(op, size, true)?;
    let mut bytes = [0; 10];
    let value = u128::from(table.limit) | u128::from(table.base) << 16;
    for (to, from) in bytes.iter_mut().zip(value.to_le_bytes()) {
        *to = from;
    }
    core.write_bytes(linear, bytes.get(..usize::try_from(size).unwrap_or(6)).unwrap_or_default())
}

/// SLDT and STR (`TASK`).
pub(crate) fn store_selector<T: Int, const TASK: bool>(core: &mut Core, op: &Op) -> Run {
    if core.is_real() {
        return core.undefined();
    }
    check_umip(core)?;
    let selector = if TASK { core.tr.selector } else { core.ldt.selector };
    if op.flags & MEMORY != 0 {
        return core.set_first(op, selector);
    }
    core.set_reg(op.dst, T::of(u64::from(selector)));
    Ok(())
}

/// LLDT.
pub(crate) fn lldt(core: &mut Core, op: &Op) -> Run {
    if core.is_real() {
        return core.undefined();
    }
    privileged(core)?;
    let selector = core.first::<u16>(op)?;
    if selector & SELECTOR == 0 {
        core.ldt = Segment { selector, unusable: true, ..Segment::default() };
        return core.finish(op);
    }
    let error = selector & SELECTOR;
    if selector & 4 != 0 {
        return core.protection_fault(error);
    }
    let mut descriptor = core.descriptor(selector, exception::GP)?;
    if descriptor.is_segment() || descriptor.kind() != LDT {
        return core.protection_fault(error);
    }
    if !descriptor.is_present() {
        return core.raise_with(exception::NP, u32::from(error));
    }
    core.upper_half(&mut descriptor, exception::GP)?;
    check_base(core, &descriptor.segment(), error)?;
    core.ldt = descriptor.segment();
    core.finish(op)
}

/// A base of 64 bits must be canonical.
fn check_base(core: &mut Core, segment: &Segment, error: u16) -> Run {
    if is_canonical(segment.base) { Ok(()) } else { core.protection_fault(error) }
}

/// LTR.
pub(crate) fn ltr(core: &mut Core, op: &Op) -> Run {
    if core.is_real() {
        return core.undefined();
    }
    privileged(core)?;
    let selector = core.first::<u16>(op)?;
    let error = selector & SELECTOR;
    if error == 0 || selector & 4 != 0 {
        return core.protection_fault(error);
    }
    let mut descriptor = core.descriptor(selector, exception::GP)?;
    let is_task = descriptor.kind() == TSS || descriptor.kind() == TSS_16 && !core.is_long();
    if descriptor.is_segment() || !is_task {
        return core.protection_fault(error);
    }
    if !descriptor.is_present() {
        return core.raise_with(exception::NP, u32::from(error));
    }
    core.upper_half(&mut descriptor, exception::GP)?;
    check_base(core, &descriptor.segment(), error)?;
    core.set_type_bits(&mut descriptor, BUSY)?;
    core.tr = descriptor.segment();
    core.finish(op)
}

/// ARPL.
pub(crate) fn arpl(core: &mut Core, op: &Op) -> Run {
    if core.is_real() {
        return core.undefined();
    }
    let rpl = core.reg::<u16>(op.src) & 3;
    let (old, new) = core.update_first::<u16>(op, |old| old & !3 | (old & 3).max(rpl))?;
    core.flags.change(ZF, if old == new { 0 } else { ZF });
    Ok(())
}

/// The descriptor that VERR, VERW, LAR and LSL look at; `None` if the program must not see it.
fn visible(core: &mut Core, selector: u16) -> Run<Option<crate::segment::Descriptor>> {
    if selector & SELECTOR == 0 {
        return Ok(None);
    }
    let mut descriptor = match core.descriptor(selector, exception::GP) {
        Ok(descriptor) => descriptor,
        Err(Stop::Fault) if core.fault.vector == exception::GP => return Ok(None),
        Err(stop) => return Err(stop),
    };
    if !descriptor.is_segment() && core.is_long() {
        match core.upper_half(&mut descriptor, exception::GP) {
            Ok(()) => {}
            Err(Stop::Fault) if core.fault.vector == exception::GP => return Ok(None),
            Err(stop) => return Err(stop),
        }
    }
    let conforms = descriptor.is_code() && descriptor.is_conforming();
    let level = ((selector & 3) as u8).max(core.cpl);
    Ok((conforms || descriptor.dpl() >= level).then_some(descriptor))
}

/// VERR and VERW (`WRITE`).
pub(crate) fn verify<const WRITE: bool>(core: &mut Core, op: &Op) -> Run {
    if core.is_real() {
        return core.undefined();
    }
    let selector = core.first::<u16>(op)?;
    let is_allowed = visible(core, selector)?.is_some_and(|descriptor| {
        let code = descriptor.is_code();
        descriptor.is_segment()
            && if WRITE { !code && descriptor.is_open() } else { !code || descriptor.is_open() }
    });
    core.flags.change(ZF, if is_allowed { ZF } else { 0 });
    Ok(())
}

/// LAR and LSL (`LIMIT`).
pub(crate) fn look<T: Int, const LIMIT: bool>(core: &mut Core, op: &Op) -> Run {
    if core.is_real() {
        return core.undefined();
    }
    let selector = core.second::<u16>(op)?;
    let found = visible(core, selector)?.filter(|descriptor| {
        let kind = descriptor.kind();
        // Tables and tasks, and gates for LAR.
        let is_known = match kind {
            2 | 9 | 11 => true,
            1 | 3 => !core.is_long(),
            12 => !LIMIT,
            4 | 5 => !LIMIT && !core.is_long(),
            _ => false,
        };
        descriptor.is_segment() || is_known
    });
    if let Some(descriptor) = found {
        let value = if LIMIT {
            u64::from(descriptor.segment().limit)
        } else {
            descriptor.low >> 32 & 0x00f0_ff00
        };
        core.set_reg(op.dst, T::of(value));
    }
    core.flags.change(ZF, if found.is_some() { ZF } else { 0 });
    Ok(())
}

/// Size of an XSAVE area in the standard format with these parts.
const fn area(xcr0: u64) -> u32 {
    if xcr0 & 4 != 0 { 832 } else { 576 }
}

/// CPUID. What depends on control registers is filled in (Intel SDM vol. 2, CPUID).
pub(crate) fn cpuid(core: &mut Core, op: &Op) -> Run {
    let (function, index) = (core.reg::<u32>(RAX), core.reg::<u32>(RCX));
    let mut leaf = core.cpuid.leaf(function, index).unwrap_or_default();
    match function {
        1 => {
            leaf.ecx =
                leaf.ecx & !(1 << 27) | if core.cr4 & CR4_OSXSAVE != 0 { 1 << 27 } else { 0 };
            if core.apic_base & 1 << 11 == 0 {
                leaf.edx &= !(1 << 9);
            }
        }
        0xd if index == 0 => leaf.ebx = area(core.xcr0),
        0xd if index == 1 && leaf.eax & 2 != 0 => leaf.ebx = area(core.xcr0),
        _ => {}
    }
    for (number, value) in [(RAX, leaf.eax), (RBX, leaf.ebx), (RCX, leaf.ecx), (RDX, leaf.edx)] {
        core.set_reg(number, value);
    }
    core.finish(op)
}
