//! Between Nerite's neutral state and KVM's structures, field by field.

use kvm_bindings::{
    KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP,
    KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, kvm_cpuid_entry2, kvm_dtable, kvm_guest_debug, kvm_regs,
    kvm_segment, kvm_sregs,
};
use nerite_arch::{CpuidEntry, DescriptorTable, Regs, Segment, SpecialRegs};
use nerite_vcpu::EngineDebug;

/// The general registers of `$from` in the structure `$to`: both have the same fields, and no others.
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

/// How KVM is told what to stop at.
pub(crate) fn debug_to_kvm(from: &EngineDebug) -> kvm_guest_debug {
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
    for (to, address) in debug.arch.debugreg.iter_mut().zip(from.address) {
        *to = address;
    }
    let [.., dr7] = &mut debug.arch.debugreg;
    *dr7 = from.dr7;
    debug
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_on_the_way_there_and_back() {
        let state = nerite_arch::BootState::hermit(
            3,
            &nerite_arch::hermit::BootAddresses { entry: 1, boot_info: 2, stack: 3, pml4: 0x4000, gdt: 5 },
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
