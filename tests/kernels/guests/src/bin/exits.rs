//! Makes many exits of one kind, to count and to time them. Arguments: how many, and `in`, `out`,
//! `mmio`, `hypercall`, `posted` (a write that need not leave the guest) or `cpuid`.

#![no_std]
#![no_main]

use runtime::prelude::*;
use runtime::{mmio, paging};

runtime::kernel!(v2, main);

const PORT: u16 = 0x3000;
const PCI_ADDRESS: u16 = 0xcf8;
const ADDRESS: u64 = 0xd123_4000;

fn main() {
    let args = boot::args();
    let count: u64 =
        args.first().and_then(|arg| arg.parse().ok()).expect("wants a number of exits");
    let kind = args.get(1).map_or("in", String::as_str);
    paging::map_identity(ADDRESS, ADDRESS + paging::PAGE);
    let start = cpu::tsc();
    for _ in 0..count {
        match kind {
            "in" => check_eq!(cpu::in8(PORT), 0xff, "a byte from a port where nothing is"),
            "out" => cpu::out8(PORT, 0),
            "mmio" => check_eq!(mmio::read32(ADDRESS), u32::MAX, "a word where no memory is"),
            // An empty buffer: the exit without the output.
            "hypercall" => runtime::v2().write(&[]),
            "posted" => cpu::out32(PCI_ADDRESS, 0),
            "cpuid" => check!(cpu::cpuid(0, 0).eax > 0, "no CPUID leaves"),
            other => panic!("{other:?} is no kind of exit"),
        }
    }
    let cycles = cpu::tsc() - start;
    let nanoseconds = u128::from(cycles) * 1_000_000 / u128::from(boot::tsc_khz());
    println!("{count} exits of kind {kind}");
    println!("{kind}: {} ns", nanoseconds / u128::from(count.max(1)));
}
