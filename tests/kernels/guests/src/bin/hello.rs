//! Greets, and tells what kind of machine it finds itself in. The demo of `cargo xtask run`.

#![no_std]
#![no_main]

use runtime::hermit_entry::boot_info::PlatformInfo;
use runtime::prelude::*;

runtime::kernel!(v2, main);

fn main() {
    let args = boot::args();
    let name = args.first().map_or("there", String::as_str);
    println!("Hello, {name}! This is a guest on Nerite.");
    let memory: u64 = boot::memory().iter().map(|region| region.end - region.start).sum();
    let cpus = boot::cpus();
    let s = if cpus == 1 { "" } else { "s" };
    println!(
        "  {cpus} processor{s} at {} MHz, {} MiB of memory",
        boot::tsc_khz() / 1000,
        memory >> 20
    );
    // A virtual machine's time stamp counter starts at 0.
    let age = cpu::tsc() * 1000 / boot::tsc_khz();
    println!("  My processor has been running for {}.{:03} ms.", age / 1000, age % 1000);
    let range = &boot::info().load_info.kernel_image_addr_range;
    println!(
        "  I was loaded at {:#x} and take {} KiB.",
        range.start,
        (range.end - range.start) >> 10
    );
    if let PlatformInfo::Uhyve { boot_time, .. } = boot::info().platform_info {
        println!(
            "  The clock said {} {} UTC when I was started.",
            boot_time.date(),
            boot_time.time()
        );
        check!(boot_time.year() >= 2024, "the boot time is {boot_time}");
    }
}
