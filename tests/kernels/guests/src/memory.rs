//! The checks of both memory guests: the memory map holds together.

use runtime::boot::{Region, info};
use runtime::paging::lookup;
use runtime::prelude::*;

const GAP: Region = Region { start: 3 << 30, end: 4 << 30 };

/// Checks the regions against each other and the expected size in bytes.
pub(crate) fn regions(regions: &[Region], expected: u64) {
    let mut previous = 0;
    for (index, region) in regions.iter().enumerate() {
        println!(
            "region {index}: {:#x} to {:#x}, {} MiB",
            region.start,
            region.end,
            (region.end - region.start) >> 20
        );
        check!(region.start < region.end, "region {index} is empty");
        check!(region.start >= previous, "region {index} starts before the previous one ends");
        check!(
            region.end <= GAP.start || region.start >= GAP.end,
            "region {index} reaches into the PCI gap"
        );
        check_eq!((region.start | region.end) % 4096, 0, "bits below a page of region {index}");
        previous = region.end;
    }
    let total: u64 = regions.iter().map(|region| region.end - region.start).sum();
    check_eq!(total, expected, "bytes of memory");
    let range = &info().hardware_info.phys_addr_range;
    check_eq!(
        Some(range.start),
        regions.first().map(|r| r.start),
        "start of memory in the boot info"
    );
    check_eq!(Some(range.end), regions.last().map(|r| r.end), "end of memory in the boot info");
}

/// Checks that what the VMM wrote lies where RAM is, and is mapped one to one.
pub(crate) fn contents(regions: &[Region]) {
    let inside = |start: u64, end: u64| {
        regions.iter().any(|region| region.start <= start && end <= region.end)
    };
    let kernel = &info().load_info.kernel_image_addr_range;
    let (root, last_slot) = runtime::paging::root();
    check!(inside(kernel.start, kernel.end), "the kernel {kernel:#x?} is not in RAM");
    check!(inside(root, root + 4096), "the page tables at {root:#x} are not in RAM");
    check_eq!(last_slot & 0x000f_ffff_ffff_f000, root, "PML4 entry 511 points to the PML4");
    check_eq!(last_slot & 1, 1, "PML4 entry 511 is present");
    let first =
        regions.iter().find(|region| region.start <= kernel.start && kernel.end <= region.end);
    let Some(first) = first else { return };
    let mut at = first.start;
    while at < kernel.end {
        match lookup(at) {
            Some(mapping) => {
                check_eq!(mapping.physical, at, "physical address of {at:#x}");
                check!(mapping.writable, "{at:#x} is not writable");
            }
            None => check!(false, "{at:#x} is not mapped"),
        }
        at += 4096;
    }
    let stack = runtime::smp::found(0).map_or(0, |found| found.state.rsp);
    check!(inside(stack, stack + 0x8000), "the boot stack at {stack:#x} is not in RAM");
    check!(
        stack + 0x8000 <= kernel.start || stack >= kernel.end,
        "the boot stack lies in the kernel"
    );
    check!(lookup(stack).is_some(), "the boot stack is not mapped");
}
