//! Places guests of several kinds and sizes, prints where everything lies, and touches their
//! memory.
//!
//! `cargo run -p nerite-memory --example place`

#![allow(clippy::print_stdout, reason = "an example prints")]

use nerite_memory::{AddressLimit, Backing, GuestRam, Layout, Request};

fn main() -> Result<(), nerite_memory::Error> {
    let hermit = Request {
        memory_size: 64 << 20,
        kernel_mem_size: 3 << 20,
        fixed_start: None,
        address_limit: AddressLimit::Bits64,
        aslr: true,
        fdt_size: 600,
        initrd_size: 0,
        legacy_identity_map: false,
    };
    let old = Request {
        memory_size: 5 << 30,
        address_limit: AddressLimit::Bits32,
        aslr: false,
        ..hermit
    };
    let linked = Request { fixed_start: Some(0x20_0000), ..old };
    // A program that runs guests would draw this from the system.
    let random = 0x0123_4567_89ab_cdef;
    for (name, request) in
        [("64 MiB anywhere", hermit), ("5 GiB from 0", old), ("linked to 2 MiB", linked)]
    {
        let layout = Layout::place(&request, random, 40)?;
        println!("{name}:\n{layout}");
        let ram = GuestRam::new(&layout.regions, &Backing::default())?;
        for mapping in ram.mappings() {
            println!("{:#x} + {:#x} is at {:p} here", mapping.guest, mapping.size, mapping.host);
        }
        let outside = ram.write(layout.span().end(), b"?");
        println!("{}\n", outside.map_or_else(|error| error.to_string(), |()| "written".to_owned()));
    }
    let error = Layout::place(&Request { memory_size: 2 << 20, ..hermit }, random, 40);
    println!(
        "and too small: {}",
        error.map_or_else(|error| error.to_string(), |layout| layout.to_string())
    );
    Ok(())
}
