//! Entry states and tables for kernels that expect a PC: Linux, PVH and multiboot.
//!
//! Everything a kernel is handed lies in the last 60 KiB of the first 640 KiB and in the BIOS area,
//! so that a kernel may be linked anywhere else:
//!
//! | address | what |
//! |---|---|
//! | 0x400 | BIOS data area: where the EBDA is, how much base memory there is |
//! | 0x90000 | boot GDT |
//! | 0x91000 | Linux' zero page, PVH's start info or multiboot's information |
//! | 0x92000 | tables that those point to |
//! | 0x93000 | boot page tables (64-bit entry only) |
//! | 0x9a000 | end of the boot stack |
//! | 0x9b000 | command line, then the names of modules |
//! | 0x9fc00 | EBDA with the MultiProcessor table |
//! | 0xe0000 | ACPI tables |
//! | 0xf0000 | SMBIOS tables |
//!
//! * [`entry`]: the registers of each protocol;
//! * [`map`]: the memory map (e820);
//! * [`linux`], [`pvh`], [`multiboot`]: what each protocol's information holds;
//! * [`mp_table`], [`acpi`]: processors and interrupts;
//! * [`smbios`]: the machine's name.

pub mod acpi;
pub mod entry;
pub mod linux;
pub mod map;
pub mod mp_table;
pub mod multiboot;
pub mod pvh;
pub mod smbios;

/// The boot GDT.
pub const GDT: u64 = 0x9_0000;
/// The boot protocol's information structure: one page.
pub const INFO: u64 = 0x9_1000;
/// Tables that [`INFO`] points to: one page.
pub const TABLES: u64 = 0x9_2000;
/// The root of the boot page tables.
pub const PML4: u64 = 0x9_3000;
/// The other boot page tables.
pub const PAGE_TABLES: u64 = 0x9_4000;
/// The first address after them, and of a small stack that grows down to there.
pub const PAGE_TABLES_END: u64 = 0x9_9000;
/// Top of the boot stack, which grows down.
pub const STACK_TOP: u64 = 0x9_a000;
/// The command line, NUL-terminated.
pub const COMMAND_LINE: u64 = 0x9_b000;
/// Room for the command line in bytes, its NUL included.
pub const COMMAND_LINE_ROOM: u64 = 0x3000;
/// Names of multiboot modules and of the loader, each NUL-terminated.
pub const STRINGS: u64 = 0x9_e000;
/// The first address after them.
pub const STRINGS_END: u64 = 0x9_f000;
/// The extended BIOS data area: the last KiB of base memory.
pub const EBDA: u64 = 0x9_fc00;
/// End of base memory.
pub const BASE_MEMORY_END: u64 = 0xa_0000;
/// The BIOS area, which is reserved and holds the ACPI and SMBIOS tables.
pub const BIOS: u64 = 0xe_0000;
/// Start of extended memory, which is free for kernels.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// The first address that a kernel cannot be loaded to: where what it is handed begins.
pub const BOOT_DATA: u64 = GDT;

/// I/O APIC address (82093AA, 3.0).
pub const IO_APIC: u32 = 0xfec0_0000;
/// Local APIC address (Intel SDM vol. 3, 12.4.1).
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Configuration space of PCI bus 0 in memory (PCI Express 4.0, 7.2.2), between the addresses of
/// interrupt messages and those of firmware.
pub const ECAM: u32 = 0xfef0_0000;
/// Its size in bytes: that of one bus.
pub const ECAM_SIZE: u32 = 1 << 20;
/// The interrupt of the clock's alarm.
pub const CLOCK_IRQ: u8 = 8;
/// The interrupt of ACPI events.
pub const SCI_IRQ: u8 = 12;
/// The interrupt of a new generation of the virtual machine.
pub const GENERATION_IRQ: u8 = 14;

/// The two fields of the BIOS data area that kernels read: segment of the EBDA at 0x40e, KiB of
/// base memory at 0x413.
pub const BIOS_DATA: [(u64, u16); 2] = [(0x40e, 0x9fc0), (0x413, 639)];
