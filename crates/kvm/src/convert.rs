//! Between Nerite's neutral state and KVM's structures, field by field.

use kvm_bindings::{
    KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE,
    KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, kvm_cpuid_entry2,
    kvm_dtable, kvm_guest_debug, kvm_regs, kvm_segment, kvm_sregs,
};
use nerite_arch::{CpuidEntry, DescriptorTable, Regs, Segment, SpecialRegs};
use nerite_hypervisor::{DebugCause, GuestDebug, PointKind};

/// The general registers of `$from` in the structure `$to`: both have the same fields, and no
/// others.
macro_rules! same_registers {
    ($from:expr => $to:ident) => {
        same_registers!($from => $to: rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags)
    };
    ($from:expr => $to:ident: $($name:ident)*) => {
        $to { $($name: $from.$name),* }
    };
}

pub(crate) const fn regs_from_kvm(from: &kvm_regs) -> Regs {
    same_registers!(from => Regs)
}

pub(crate) const fn regs_to_kvm(from: &Regs) -> kvm_regs {
    same_registers!(from => kvm_regs)
}

fn segment_from_kvm(from: &kvm_segment) -> Segment {
    Segment {
        base: from.base,
        limit: from.limit,
        selector: from.selector,
        kind: from.type_,
        present: from.present != 0,
        dpl: from.dpl,
        db: from.db != 0,
        s: from.s != 0,
        l: from.l != 0,
        g: from.g != 0,
        avl: from.avl != 0,
        unusable: from.unusable != 0,
    }
}

fn segment_to_kvm(from: &Segment) -> kvm_segment {
    kvm_segment {
        base: from.base,
        limit: from.limit,
        selector: from.selector,
        type_: from.kind,
        present: from.present.into(),
        dpl: from.dpl,
        db: from.db.into(),
        s: from.s.into(),
        l: from.l.into(),
        g: from.g.into(),
        avl: from.avl.into(),
        unusable: from.unusable.into(),
        padding: 0,
    }
}

fn table_from_kvm(from: &kvm_dtable) -> DescriptorTable {
    DescriptorTable { base: from.base, limit: from.limit }
}

fn table_to_kvm(from: DescriptorTable) -> kvm_dtable {
    kvm_dtable { base: from.base, limit: from.limit, padding: [0; 3] }
}

pub(crate) fn special_regs_from_kvm(from: &kvm_sregs) -> SpecialRegs {
    SpecialRegs {
        cs: segment_from_kvm(&from.cs),
        ds: segment_from_kvm(&from.ds),
        es: segment_from_kvm(&from.es),
        fs: segment_from_kvm(&from.fs),
        gs: segment_from_kvm(&from.gs),
        ss: segment_from_kvm(&from.ss),
        tr: segment_from_kvm(&from.tr),
        ldt: segment_from_kvm(&from.ldt),
        gdt: table_from_kvm(&from.gdt),
        idt: table_from_kvm(&from.idt),
        cr0: from.cr0,
        cr2: from.cr2,
        cr3: from.cr3,
        cr4: from.cr4,
        cr8: from.cr8,
        efer: from.efer,
        apic_base: from.apic_base,
    }
}

/// Leaves what [`SpecialRegs`] does not have (pending interrupts) as it is in `to`.
pub(crate) fn special_regs_to_kvm(from: &SpecialRegs, to: &mut kvm_sregs) {
    to.cs = segment_to_kvm(&from.cs);
    to.ds = segment_to_kvm(&from.ds);
    to.es = segment_to_kvm(&from.es);
    to.fs = segment_to_kvm(&from.fs);
    to.gs = segment_to_kvm(&from.gs);
    to.ss = segment_to_kvm(&from.ss);
    to.tr = segment_to_kvm(&from.tr);
    to.ldt = segment_to_kvm(&from.ldt);
    to.gdt = table_to_kvm(from.gdt);
    to.idt = table_to_kvm(from.idt);
    to.cr0 = from.cr0;
    to.cr2 = from.cr2;
    to.cr3 = from.cr3;
    to.cr4 = from.cr4;
    to.cr8 = from.cr8;
    to.efer = from.efer;
    to.apic_base = from.apic_base;
}

pub(crate) fn cpuid_from_kvm(from: &kvm_cpuid_entry2) -> CpuidEntry {
    CpuidEntry {
        function: from.function,
        index: (from.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0).then_some(from.index),
        eax: from.eax,
        ebx: from.ebx,
        ecx: from.ecx,
        edx: from.edx,
    }
}

pub(crate) fn cpuid_to_kvm(from: &CpuidEntry) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function: from.function,
        index: from.index.unwrap_or(0),
        flags: if from.index.is_some() { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 },
        eax: from.eax,
        ebx: from.ebx,
        ecx: from.ecx,
        edx: from.edx,
        ..Default::default()
    }
}

/// Converts the set of stops to KVM's form.
pub(crate) fn debug_to_kvm(from: &GuestDebug) -> kvm_guest_debug {
    let mut control = 0;
    for (wanted, bits) in [
        (from.single_step, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP),
        (from.single_step && from.block_interrupts, KVM_GUESTDBG_BLOCKIRQ),
        (from.software, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP),
        (from.trap, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP),
    ] {
        control |= if wanted { bits } else { 0 };
    }
    let mut debug = kvm_guest_debug { control, ..Default::default() };
    let mut dr7 = 0;
    for ((number, register), point) in (0_u32..).zip(&mut debug.arch.debugreg).zip(from.points) {
        let Some(point) = point else { continue };
        *register = point.address;
        dr7 |= dr7_bits(number, point.kind);
    }
    let [.., last] = &mut debug.arch.debugreg;
    *last = dr7;
    debug
}

/// Bits of DR7 for one debug register (Intel SDM vol. 3, 18.2.4): global enable, and from bit 16
/// on the kind in the lower two and the length in the upper two of four.
fn dr7_bits(number: u32, kind: PointKind) -> u64 {
    let length = |length| match length {
        2 => 0b0100,
        4 => 0b1100,
        8 => 0b1000,
        _ => 0,
    };
    let bits: u64 = match kind {
        PointKind::Execute => 0,
        PointKind::Write { length: bytes } => 0b01 | length(bytes),
        PointKind::Access { length: bytes } => 0b11 | length(bytes),
    };
    let enable = 0b10_u64.checked_shl(number.saturating_mul(2)).unwrap_or(0);
    enable | bits.checked_shl(number.saturating_mul(4).saturating_add(16)).unwrap_or(0)
}

/// The cause of a stop, from the exception's vector and DR6 (Intel SDM vol. 3, 18.2.3).
pub(crate) fn debug_cause(exception: u32, dr6: u64) -> DebugCause {
    const BREAKPOINT: u32 = 3;
    const POINTS: u64 = 0xf;
    const SINGLE_STEP: u64 = 1 << 14;
    if exception == BREAKPOINT {
        return DebugCause::Breakpoint;
    }
    let points = u8::try_from(dr6 & POINTS).unwrap_or(0);
    DebugCause::Trap { points, single_step: dr6 & SINGLE_STEP != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_points_are_as_in_dr7() {
        let point = |address, kind| Some(nerite_hypervisor::DebugPoint { address, kind });
        let points = [
            point(0x1000, PointKind::Execute),
            point(0x2000, PointKind::Write { length: 8 }),
            point(0x3000, PointKind::Access { length: 2 }),
            None,
        ];
        let debug = debug_to_kvm(&GuestDebug { trap: true, points, ..GuestDebug::default() });
        assert_eq!(debug.arch.debugreg, [0x1000, 0x2000, 0x3000, 0, 0, 0, 0, 0x0790_002a]);
    }

    #[test]
    fn the_cause_of_a_stop_is_in_dr6() {
        assert_eq!(debug_cause(3, 0), DebugCause::Breakpoint);
        assert_eq!(debug_cause(1, 1 << 14), DebugCause::STEP);
        let hit = DebugCause::Trap { points: 0b0110, single_step: false };
        assert_eq!(debug_cause(1, 0xffff_0ff6), hit);
    }

    #[test]
    fn nothing_is_lost_on_the_way_there_and_back() {
        let state = nerite_arch::BootState::hermit(
            3,
            &nerite_arch::hermit::BootAddresses {
                entry: 1,
                boot_info: 2,
                stack: 3,
                pml4: 0x4000,
                gdt: 5,
            },
        );
        assert_eq!(regs_from_kvm(&regs_to_kvm(&state.regs)), state.regs);
        let mut sregs = kvm_sregs { interrupt_bitmap: [1, 2, 3, 4], ..Default::default() };
        special_regs_to_kvm(&state.special, &mut sregs);
        assert_eq!(special_regs_from_kvm(&sregs), state.special);
        assert_eq!(sregs.interrupt_bitmap, [1, 2, 3, 4]);
        for index in [None, Some(0), Some(7)] {
            let entry = CpuidEntry { function: 4, index, eax: 1, ebx: 2, ecx: 3, edx: 4 };
            assert_eq!(cpuid_from_kvm(&cpuid_to_kvm(&entry)), entry);
        }
    }
}
