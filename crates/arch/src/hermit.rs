//! Entry state of a Hermit kernel under the uhyve hypercall interface.
//!
//! Every vCPU starts at the ELF entry point in 64-bit mode, with paging on and interrupts off;
//! application processors wait inside the guest for their turn.

use crate::{BootState, DescriptorTable, Msr, Regs, Segment, SpecialRegs, gdt};

/// CR0 at entry: PE, ET, NE, PG (Intel SDM vol. 3, 2.5).
pub const CR0: u64 = 0x8000_0031;
/// CR4 at entry: PAE. SSE is off until the guest enables it.
pub const CR4: u64 = 0x20;
/// `IA32_EFER` at entry: LME, LMA, NXE (Intel SDM vol. 3, 2.2.1).
pub const EFER: u64 = 0xd00;

/// `IA32_APIC_BASE` (Intel SDM vol. 3, 12.4.4).
pub const MSR_APIC_BASE: u32 = 0x1b;
/// `IA32_MISC_ENABLE` (Intel SDM vol. 4, table 2-2).
pub const MSR_MISC_ENABLE: u32 = 0x1a0;

/// The xAPIC's address with its enable bit.
const APIC_ENABLED: u64 = 0xfee0_0800;
/// The bit that marks the bootstrap processor.
const APIC_BSP: u64 = 1 << 8;
/// Fast string operations.
const MISC_ENABLE_FAST_STRINGS: u64 = 1;

/// The guest-physical addresses a vCPU starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootAddresses {
    /// The kernel's entry point.
    pub entry: u64,
    /// The boot information.
    pub boot_info: u64,
    /// The **lowest** address of the boot stack: the kernel adds the stack's size itself. All vCPUs
    /// get the same.
    pub stack: u64,
    /// The root of the boot page tables.
    pub pml4: u64,
    /// The boot GDT.
    pub gdt: u64,
}

impl BootState {
    /// A Hermit kernel, on the vCPU with number `vcpu_index`, 0 being the bootstrap processor.
    #[must_use]
    pub fn hermit(vcpu_index: u32, addresses: &BootAddresses) -> Self {
        let apic_base = APIC_ENABLED | if vcpu_index == 0 { APIC_BSP } else { 0 };
        let regs = Regs {
            rip: addresses.entry,
            rdi: addresses.boot_info,
            rsi: u64::from(vcpu_index),
            rsp: addresses.stack,
            rflags: 2,
            ..Regs::default()
        };
        let [_, code, data] = gdt::ENTRIES;
        let data = Segment::from_descriptor(gdt::DATA_SELECTOR, data);
        let special = SpecialRegs {
            cs: Segment::from_descriptor(gdt::CODE_SELECTOR, code),
            ds: data,
            es: data,
            ss: data,
            fs: RESET_DATA,
            gs: RESET_DATA,
            tr: RESET_TR,
            ldt: RESET_LDT,
            gdt: DescriptorTable { base: addresses.gdt, limit: gdt::SIZE.saturating_sub(1) },
            // No IDT: a fault before the guest loads its own is a triple fault, not a jump through
            // whatever lies at address 0.
            idt: DescriptorTable::default(),
            cr0: CR0,
            cr2: 0,
            cr3: addresses.pml4,
            cr4: CR4,
            cr8: 0,
            efer: EFER,
            apic_base,
        };
        let msrs = vec![
            Msr { index: MSR_APIC_BASE, value: apic_base },
            Msr { index: MSR_MISC_ENABLE, value: MISC_ENABLE_FAST_STRINGS },
        ];
        Self { regs, special, msrs }
    }
}

/// FS and GS as a reset leaves them (Intel SDM vol. 3, table 11-1): base 0, which is all that
/// counts in 64-bit mode.
const RESET_DATA: Segment = system(3, true);
/// A task register that VM entry accepts: a busy 64-bit TSS (Intel SDM vol. 3, 28.3.1.2).
const RESET_TR: Segment = system(11, false);
/// LDTR after a reset.
const RESET_LDT: Segment = system(2, false);

const fn system(kind: u8, s: bool) -> Segment {
    Segment {
        base: 0,
        limit: 0xffff,
        selector: 0,
        kind,
        present: true,
        dpl: 0,
        db: false,
        s,
        l: false,
        g: false,
        avl: false,
        unusable: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: BootAddresses = BootAddresses {
        entry: 0x1_0004_1000,
        boot_info: 0x1_0000_5000,
        stack: 0x1_0003_8000,
        pml4: 0x1_0001_0000,
        gdt: 0x1_0000_0000,
    };

    #[test]
    fn entry_state_of_the_contract() {
        let BootState { regs, special, .. } = BootState::hermit(3, &ADDRESSES);
        let expected = Regs {
            rip: ADDRESSES.entry,
            rdi: ADDRESSES.boot_info,
            rsi: 3,
            rsp: ADDRESSES.stack,
            rflags: 2,
            ..Regs::default()
        };
        assert_eq!(regs, expected);
        assert_eq!(
            (special.cr0, special.cr4, special.efer),
            (0x8000_0031, 1 << 5, 1 << 8 | 1 << 10 | 1 << 11)
        );
        assert_eq!(special.cr3, ADDRESSES.pml4);
        assert_eq!((special.gdt.base, special.gdt.limit), (ADDRESSES.gdt, 23));
        assert_eq!(special.idt, DescriptorTable { base: 0, limit: 0 });
        assert_eq!((special.cs.selector, special.cs.l, special.cs.db), (8, true, false));
        for segment in [special.ds, special.es, special.ss] {
            assert_eq!((segment.selector, segment.base, segment.limit), (0x10, 0, 0xffff_ffff));
        }
    }

    #[test]
    fn only_vcpu_0_is_the_bootstrap_processor() {
        for (index, base) in [(0, 0xfee0_0900), (1, 0xfee0_0800), (15, 0xfee0_0800)] {
            let state = BootState::hermit(index, &ADDRESSES);
            assert_eq!(state.special.apic_base, base);
            let expected = [Msr { index: 0x1b, value: base }, Msr { index: 0x1a0, value: 1 }];
            assert_eq!(state.msrs, expected);
        }
    }

    /// Checks of VM entry on the hidden parts in 64-bit mode (Intel SDM vol. 3, 28.3.1.2).
    #[test]
    fn vm_entry_accepts_the_segments() {
        let special = BootState::hermit(0, &ADDRESSES).special;
        assert_eq!((special.tr.kind, special.tr.s, special.tr.present), (11, false, true));
        assert_eq!((special.ldt.kind, special.ldt.s), (2, false));
        let all = [special.cs, special.ds, special.es, special.fs, special.gs, special.ss];
        assert!(all.iter().all(|segment| segment.s && segment.present && segment.kind & 1 == 1));
        for segment in all.iter().chain([&special.tr, &special.ldt]) {
            let low_ones = segment.limit & 0xfff == 0xfff;
            assert!(if segment.g { low_ones } else { segment.limit <= 0xf_ffff }, "{segment}");
        }
    }
}
