//! Page tables as a guest would make them.

use nerite_arch::SpecialRegs;
use nerite_memory::GuestRam;

/// Address of the root: the tables are on this page and the three after it.
pub const ROOT: u64 = 0x1000;
const PRESENT_WRITABLE: u64 = 3;
/// CR0 with paging, CR4 with PAE, and EFER, as the boot code has them.
const CR0: u64 = 0x8000_0031;
const CR4: u64 = 0x20;
const EFER: u64 = 0xd00;

/// Maps pages below 2 MiB: the virtual page of the first number to the physical address of the
/// second. Gives the registers of a vCPU that uses these tables.
pub fn map(ram: &GuestRam, pages: &[(u64, u64)]) -> SpecialRegs {
    for table in [ROOT, ROOT + 0x1000, ROOT + 0x2000] {
        ram.write_obj(table, &((table + 0x1000) | PRESENT_WRITABLE)).unwrap();
    }
    for (page, physical) in pages {
        ram.write_obj(ROOT + 0x3000 + page * 8, &(physical | PRESENT_WRITABLE)).unwrap();
    }
    special_regs()
}

/// The registers of a vCPU that uses the tables at [`ROOT`].
pub fn special_regs() -> SpecialRegs {
    SpecialRegs { cr0: CR0, cr3: ROOT, cr4: CR4, efer: EFER, ..SpecialRegs::default() }
}
