//! Prints what a vCPU of a small guest starts with, and looks an address up in the page tables it
//! boots on.
//!
//! `cargo run -p nerite-arch --example boot`

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::collections::BTreeMap;

use nerite_arch::hermit::BootAddresses;
use nerite_arch::{BootState, fdt, paging};

const BASE: u64 = 0x1_0000_0000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addresses = BootAddresses {
        entry: BASE + 0x41000,
        boot_info: BASE + 0x5000,
        stack: BASE + 0x38000,
        pml4: BASE + 0x10000,
        gdt: BASE,
    };
    let state = BootState::hermit(1, &addresses);
    println!("{}\n{}\n", state.regs, state.special);

    let map = paging::IdentityMap {
        pml4: addresses.pml4,
        tables_start: BASE + 0x11000,
        tables_end: addresses.stack,
        start: BASE,
        end: BASE + (4 << 20),
    };
    let mut memory = BTreeMap::new();
    for table in map.tables()? {
        let (entries, _) = table.bytes.as_chunks::<8>();
        memory.extend(
            (table.addr..).step_by(8).zip(entries.iter().map(|entry| u64::from_le_bytes(*entry))),
        );
    }
    for vaddr in [addresses.entry, BASE + (4 << 20), 1 << 47] {
        match paging::walk(state.special.cr3, vaddr, |addr| memory.get(&addr).copied()) {
            Ok(found) => {
                println!("{vaddr:#x} is at {:#x}, in a page of {:#x}", found.phys, found.page_size)
            }
            Err(error) => println!("{error}"),
        }
    }

    let tree = fdt::Builder::new()
        .memory(BASE, 64 << 20)
        .cpus(2)
        .env("GREETING", "it's me")
        .app_args(["--verbose", "two words", ""]);
    println!("\nbootargs: {}\ndevice tree: {} bytes", tree.bootargs()?, tree.finish()?.len());
    Ok(())
}
