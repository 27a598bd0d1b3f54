//! The registers every processor finds at entry are those of the contract.

#![no_std]
#![no_main]

use runtime::prelude::*;
use runtime::smp;

runtime::kernel!(v2, main);

fn main() {
    smp::wait_until_started();
    let kernel = &boot::info().load_info.kernel_image_addr_range;
    let first = *smp::found(0).expect("processor 0 runs");
    for index in 0..boot::cpus() as usize {
        let Some(found) = smp::found(index) else {
            check!(false, "processor {index} did not start");
            continue;
        };
        let state = &found.state;
        check_eq!(state.cr0, 0x8000_0031, "CR0 of processor {index}");
        check_eq!(state.cr4, 0x20, "CR4 of processor {index}");
        check_eq!(found.efer & 0xd00, 0xd00, "LME, LMA and NXE in EFER of processor {index}");
        check_eq!(state.rflags, 2, "RFLAGS of processor {index}");
        check_eq!(found.selectors, [8, 0x10, 0x10, 0x10], "CS, DS, ES, SS of processor {index}");
        check_eq!(found.cr3, first.cr3, "CR3 of processor {index}");
        check_eq!(found.gdt, first.gdt, "GDT of processor {index}");
        check_eq!(state.boot_info, first.state.boot_info, "RDI of processor {index}");
        check_eq!(state.rsp, first.state.rsp, "RSP of processor {index}");
        check_eq!(state.cpu, index as u64, "RSI of processor {index}");
        let apic_base = if index == 0 { 0xfee0_0900 } else { 0xfee0_0800 };
        check_eq!(found.apic_base, apic_base, "IA32_APIC_BASE of processor {index}");
        check_eq!(
            found.misc_enable & 1,
            1,
            "fast strings in IA32_MISC_ENABLE of processor {index}"
        );
    }
    check_eq!(first.state.rsp, kernel.start - 0x8000, "the boot stack, just below the kernel");
    let (gdt, limit) = first.gdt;
    check!(limit >= 23, "GDT limit {limit:#x}");
    let entries = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    for (index, expected) in entries.into_iter().enumerate() {
        // The processor may set a descriptor's accessed bit.
        let entry = runtime::mmio::read64(gdt + 8 * index as u64);
        check_eq!(entry | u64::from(index != 0) << 40, expected, "GDT entry {index}");
    }
    println!("{} processors", boot::cpus());
}
