//! The registers of a processor after INIT, and after a start message (Intel SDM vol. 3, 10.1.1 and
//! 10.4.4.1).

use crate::{DescriptorTable, Regs, Segment, SpecialRegs};

/// CR0 after a reset: caches off, no protection.
const CR0: u64 = 0x6000_0010;
const LIMIT: u32 = 0xffff;
/// Segment types: data, written and accessed; code, read and accessed; a table; a busy task.
const DATA: u8 = 3;
const CODE: u8 = 0xb;
const TABLE: u8 = 2;
const TASK: u8 = 0xb;

/// The general registers. RDX would be the processor's version, which guests read from CPUID.
#[must_use]
pub fn regs() -> Regs {
    Regs { rip: 0xfff0, rflags: 2, ..Regs::default() }
}

/// Segments and control registers, with this `IA32_APIC_BASE`, which INIT leaves as it is.
#[must_use]
pub fn special_regs(apic_base: u64) -> SpecialRegs {
    let segment = |kind, s| Segment { limit: LIMIT, kind, s, present: true, ..Segment::default() };
    let table = DescriptorTable { base: 0, limit: 0xffff };
    let data = segment(DATA, true);
    SpecialRegs {
        cs: Segment { selector: 0xf000, base: 0xffff_0000, ..segment(CODE, true) },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: segment(TASK, false),
        ldt: segment(TABLE, false),
        gdt: table,
        idt: table,
        cr0: CR0,
        apic_base,
        ..SpecialRegs::default()
    }
}

/// Makes them those of a processor that starts at the beginning of this page of 4 KiB, with RIP 0.
pub fn start_at(special: &mut SpecialRegs, page: u8) {
    special.cs.selector = u16::from(page) << 8;
    special.cs.base = u64::from(page) << 12;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_at_the_beginning_of_its_page() {
        let mut special = special_regs(0xfee0_0800);
        assert_eq!((special.cs.base + regs().rip, special.apic_base), (0xffff_fff0, 0xfee0_0800));
        start_at(&mut special, 0x9f);
        assert_eq!((special.cs.base, special.cs.selector, special.cr0 & 1), (0x9_f000, 0x9f00, 0));
    }
}
