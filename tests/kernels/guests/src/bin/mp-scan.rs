//! Searches low memory for "_MP_" as Hermit kernels up to 0.11 do where RAM does not cover it.
//! There is no table, and no read may end the machine.

#![no_std]
#![no_main]

use runtime::prelude::*;
use runtime::{mmio, paging};

runtime::kernel!(v2, main);

fn main() {
    let mut reads = 0u32;
    for (start, end) in [(0x9f000u64, 0xa0000u64), (0xf0000, 0x100000)] {
        paging::map_identity(start, end);
        for at in (start..end).step_by(4) {
            let word = mmio::read32(at);
            check!(word != u32::from_le_bytes(*b"_MP_"), "an MP table at {at:#x}");
            reads += 1;
        }
    }
    println!("{reads} reads");
}
