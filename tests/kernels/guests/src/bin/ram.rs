//! Writes to all RAM and reads it back. Argument: the distance in bytes between two words that are
//! touched, so that much memory can be sampled where touching all of it takes too long.

#![no_std]
#![no_main]

use runtime::mmio::{read64, write64};
use runtime::paging::{PAGE, lookup, map_identity};
use runtime::prelude::*;

runtime::kernel!(v2, main);

/// Differs for every address, in all bytes.
fn pattern(address: u64) -> u64 {
    (address ^ 0x5a5a_1234_8765_a5a5).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Calls `touch` with each address to touch: every `step` bytes, and the last word.
fn each(start: u64, end: u64, step: u64, mut touch: impl FnMut(u64)) {
    let mut at = start;
    while at < end {
        touch(at);
        at += step;
    }
    touch(end - 8);
}

fn main() {
    let args = boot::args();
    let step: u64 =
        args.first().and_then(|arg| arg.parse().ok()).expect("wants a distance in bytes");
    assert!(step >= 8 && step.is_multiple_of(8), "words are 8 bytes apart at least");
    // What lies below the kernel's end is in use: tables, stacks, this code.
    let used = boot::info().load_info.kernel_image_addr_range.end.next_multiple_of(PAGE);
    let mut parts = vec![];
    for region in boot::memory() {
        map_identity(region.start, region.end);
        let holds_kernel = (region.start..region.end).contains(&(used - 1));
        let start = if holds_kernel { used } else { region.start };
        check!(
            lookup(region.end - 1).is_some(),
            "the end of RAM at {:#x} could not be mapped",
            region.end
        );
        if start < region.end {
            parts.push(start..region.end);
        }
    }
    let mut words = 0u64;
    for part in &parts {
        println!("writing to {:#x} to {:#x}", part.start, part.end);
        each(part.start, part.end, step, |at| {
            write64(at, pattern(at));
            words += 1;
        });
    }
    // All is written before anything is read, so memory that appears twice is found.
    for part in &parts {
        each(part.start, part.end, step, |at| {
            check_eq!(read64(at), pattern(at), "the word at {at:#x}")
        });
    }
    println!("{words} words");
    check!(words > 0, "there is no memory above the kernel");
}
