//! The memory map and size in boot info and device tree, interface version 2. Argument: the bytes
//! of memory.

#![no_std]
#![no_main]

use runtime::prelude::*;

#[path = "../memory.rs"]
mod memory;

runtime::kernel!(v2, main);

fn main() {
    let args = boot::args();
    let expected =
        args.first().and_then(|arg| arg.parse().ok()).expect("wants the bytes of memory");
    let regions = boot::memory();
    memory::regions(&regions, expected);
    memory::contents(&regions);

    let hardware = &boot::info().hardware_info;
    check_eq!(
        hardware.serial_port_base.map_or(0, |port| port.get()),
        0x1030,
        "serial port in the boot info"
    );
    let tree = hardware.device_tree.map_or(0, |address| address.get());
    let end = tree + boot::fdt().total_size() as u64;
    check!(
        regions.iter().any(|region| region.start <= tree && end <= region.end),
        "the device tree at {tree:#x} is not in RAM"
    );
    let kernel = &boot::info().load_info.kernel_image_addr_range;
    check!(end <= kernel.start || tree >= kernel.end, "the device tree lies in the kernel");
    let cpus = boot::fdt().cpus().count();
    check_eq!(cpus, boot::cpus() as usize, "processors in the device tree");
    println!("{cpus} processors");
}
