//! The TSC frequency is reported, sane, and the same in every source.

#![no_std]
#![no_main]

use runtime::prelude::*;

runtime::kernel!(v2, main);

/// kHz from CPUID leaf 0x15: crystal clock times a ratio.
fn leaf_15() -> Option<u64> {
    if cpu::cpuid(0, 0).eax < 0x15 {
        return None;
    }
    let leaf = cpu::cpuid(0x15, 0);
    if leaf.eax == 0 || leaf.ebx == 0 || leaf.ecx == 0 {
        return None;
    }
    Some(u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax) / 1000)
}

/// kHz from the hypervisor's leaf 0x40000010.
fn leaf_4000_0010() -> Option<u64> {
    if cpu::cpuid(0x4000_0000, 0).eax < 0x4000_0010 {
        return None;
    }
    Some(cpu::cpuid(0x4000_0010, 0).eax.into()).filter(|&khz| khz != 0)
}

fn main() {
    let info = boot::info_khz().map(u64::from);
    let tree = boot::fdt_khz().map(u64::from);
    println!(
        "kHz: boot info {info:?}, device tree {tree:?}, leaf 0x15 {:?}, leaf 0x40000010 {:?}",
        leaf_15(),
        leaf_4000_0010()
    );
    check!(info.is_some(), "the boot info has no frequency");
    check!(tree.is_some(), "the device tree has no frequency");
    let Some(khz) = info else { return };
    check!((100_000..10_000_000).contains(&khz), "{khz} kHz is no frequency of a TSC");
    for (source, other) in
        [("device tree", tree), ("leaf 0x15", leaf_15()), ("leaf 0x40000010", leaf_4000_0010())]
    {
        // Leaf 0x15 counts in whole parts of a crystal's clock.
        let Some(other) = other else { continue };
        check!(
            other.abs_diff(khz) * 1000 <= khz,
            "{source} says {other} kHz, the boot info {khz} kHz"
        );
    }
    let mut previous = cpu::tsc();
    for _ in 0..10_000 {
        let now = cpu::tsc();
        check!(now >= previous, "the TSC went back from {previous} to {now}");
        previous = now;
    }
}
