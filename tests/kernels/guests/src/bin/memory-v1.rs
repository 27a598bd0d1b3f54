//! The memory map and size in the boot info, interface version 1: RAM below 3 GiB, as hypercalls
//! name it with 32 bits. Argument: the bytes of memory.

#![no_std]
#![no_main]

use runtime::boot::Region;
use runtime::paging::lookup;
use runtime::prelude::*;

#[path = "../memory.rs"]
mod memory;

runtime::kernel!(v1, main);

fn main() {
    let (argv, _) = boot::command_v1();
    let text = argv.last().and_then(|arg| core::str::from_utf8(&arg[..arg.len() - 1]).ok());
    let expected = text.and_then(|text| text.parse().ok()).expect("wants the bytes of memory");
    let range = &boot::info().hardware_info.phys_addr_range;
    let regions = [Region { start: range.start, end: range.end }];
    memory::regions(&regions, expected);
    memory::contents(&regions);
    // Kernels before 0.10, which have no version in their notes, rely on more than their own image.
    let gigabyte_end = (range.start & !((1 << 30) - 1)) + (1 << 30);
    let last = gigabyte_end.min(range.end) - 1;
    check_eq!(lookup(last).map(|mapping| mapping.physical), Some(last), "the end of the first GiB");
    check!(range.end <= 3 << 30, "memory of a guest of version 1 ends at {:#x}", range.end);
    let port = boot::info().hardware_info.serial_port_base.map_or(0, |port| port.get());
    check_eq!(port, 0x800, "serial port in the boot info");
}
