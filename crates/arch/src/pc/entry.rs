//! The registers a kernel is entered with.

use crate::hermit::{MSR_APIC_BASE, MSR_MISC_ENABLE};
use crate::{BootState, DescriptorTable, Msr, Regs, Segment, SpecialRegs};

/// `IA32_MTRR_DEF_TYPE` (Intel SDM vol. 3, 13.11.2.1).
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, write-back where none says otherwise.
const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;
/// The local APIC where it always is, on, of the bootstrap processor.
const APIC_BASE: u64 = 0xfee0_0900;

/// The selector of the code segment: Linux' `__BOOT_CS`.
const CODE: u16 = 0x10;
/// The selector of the data segment: Linux' `__BOOT_DS`.
const DATA: u16 = 0x18;
const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const DATA_FLAT: u64 = 0x00cf_9300_0000_ffff;

/// The mode a kernel is entered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// 32-bit protected mode without paging, flat segments.
    Protected,
    /// 64-bit mode, with page tables whose root is at [`super::PML4`].
    Long,
}

impl Mode {
    /// The boot GDT as it lies in memory.
    #[must_use]
    pub fn gdt(self) -> Vec<u8> {
        self.descriptors().iter().flat_map(|entry| entry.to_le_bytes()).collect()
    }

    const fn descriptors(self) -> [u64; 4] {
        let code = match self {
            Self::Protected => CODE_32,
            Self::Long => CODE_64,
        };
        [0, 0, code, DATA_FLAT]
    }
}

impl BootState {
    /// Linux' 64-bit boot protocol (Documentation/arch/x86/boot.rst): RSI is the zero page.
    #[must_use]
    pub fn linux_64(entry: u64) -> Self {
        Self::new(Mode::Long, Regs { rip: entry, rsi: super::INFO, ..Regs::default() })
    }

    /// Linux' 32-bit boot protocol: ESI is the zero page; EBP, EDI and EBX are 0.
    #[must_use]
    pub fn linux_32(entry: u64) -> Self {
        Self::new(Mode::Protected, Regs { rip: entry, rsi: super::INFO, ..Regs::default() })
    }

    /// PVH (Xen, docs/misc/pvh.pandoc): EBX is the start info.
    #[must_use]
    pub fn pvh(entry: u64) -> Self {
        Self::new(Mode::Protected, Regs { rip: entry, rbx: super::INFO, ..Regs::default() })
    }

    /// Multiboot 1 (specification 0.6.96, 3.2): EAX is the magic number, EBX the information.
    #[must_use]
    pub fn multiboot(entry: u64) -> Self {
        let rax = super::multiboot::LOADER_MAGIC;
        Self::new(Mode::Protected, Regs { rip: entry, rax, rbx: super::INFO, ..Regs::default() })
    }

    fn new(mode: Mode, regs: Regs) -> Self {
        let descriptors = mode.descriptors();
        let [_, _, code, data] = descriptors;
        let data = Segment::from_descriptor(DATA, data);
        let long = mode == Mode::Long;
        let special = SpecialRegs {
            cs: Segment::from_descriptor(CODE, code),
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: data,
            tr: task(11),
            ldt: task(2),
            gdt: DescriptorTable { base: super::GDT, limit: 31 },
            // No IDT: the protocols hand over with interrupts off, and a fault before the kernel
            // has one of its own is a triple fault.
            idt: DescriptorTable::default(),
            // PE, ET, and NE, PG in 64-bit mode.
            cr0: if long { 0x8000_0031 } else { 0x11 },
            cr2: 0,
            cr3: if long { super::PML4 } else { 0 },
            cr4: if long { 0x20 } else { 0 },
            cr8: 0,
            efer: if long { 0x500 } else { 0 },
            apic_base: APIC_BASE,
        };
        let regs = Regs { rsp: super::STACK_TOP, rflags: 2, ..regs };
        let mut msrs = vec![Msr { index: MSR_APIC_BASE, value: APIC_BASE }];
        msrs.extend(common_msrs());
        Self { regs, special, msrs }
    }
}

/// MSRs that firmware sets on every processor: MTRRs with write-back as default, fast strings.
#[must_use]
pub fn common_msrs() -> Vec<Msr> {
    vec![
        Msr { index: MSR_MISC_ENABLE, value: 1 },
        Msr { index: MSR_MTRR_DEF_TYPE, value: MTRR_ON_WRITE_BACK },
    ]
}

/// A system segment that VM entry accepts (Intel SDM vol. 3, 28.3.1.2): a busy TSS or an LDT.
const fn task(kind: u8) -> Segment {
    Segment {
        base: 0,
        limit: 0xffff,
        selector: 0,
        kind,
        present: true,
        dpl: 0,
        db: false,
        s: false,
        l: false,
        g: false,
        avl: false,
        unusable: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_mode_is_flat_without_paging() {
        for state in
            [BootState::pvh(0x100_0000), BootState::multiboot(0x100_0000), BootState::linux_32(9)]
        {
            let special = state.special;
            assert_eq!((special.cr0, special.cr3, special.cr4, special.efer), (0x11, 0, 0, 0));
            assert!(special.cs.db && !special.cs.l && special.cs.kind == 11);
            for segment in [special.cs, special.ds, special.es, special.fs, special.gs, special.ss]
            {
                assert_eq!((segment.base, segment.limit), (0, 0xffff_ffff));
            }
            assert_eq!(state.regs.rflags, 2, "interrupts are off");
        }
    }

    #[test]
    fn each_protocol_has_its_registers() {
        let multiboot = BootState::multiboot(1).regs;
        assert_eq!((multiboot.rax, multiboot.rbx), (0x2bad_b002, super::super::INFO));
        assert_eq!(BootState::pvh(1).regs.rbx, super::super::INFO);
        let linux = BootState::linux_32(7).regs;
        assert_eq!(
            (linux.rip, linux.rsi, linux.rbp, linux.rdi, linux.rbx),
            (7, super::super::INFO, 0, 0, 0)
        );
        let long = BootState::linux_64(0x200);
        assert_eq!((long.regs.rip, long.regs.rsi), (0x200, super::super::INFO));
        assert!(long.special.cs.l && !long.special.cs.db);
        assert_eq!((long.special.cr3, long.special.efer), (super::super::PML4, 1 << 8 | 1 << 10));
    }

    #[test]
    fn selectors_are_those_of_the_table() {
        for mode in [Mode::Protected, Mode::Long] {
            let gdt = mode.gdt();
            assert_eq!(gdt.len(), 32);
            let at = |selector: u16| {
                let start = usize::from(selector);
                u64::from_le_bytes(gdt[start..start + 8].try_into().unwrap())
            };
            let state = if mode == Mode::Long { BootState::linux_64(0) } else { BootState::pvh(0) };
            assert_eq!(Segment::from_descriptor(CODE, at(CODE)), state.special.cs);
            assert_eq!(Segment::from_descriptor(DATA, at(DATA)), state.special.ds);
        }
    }
}
