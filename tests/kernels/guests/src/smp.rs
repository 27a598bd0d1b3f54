//! Every processor knows its number, and atomic operations are atomic across processors.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use runtime::entry::MAX_CPUS;
use runtime::prelude::*;
use runtime::{apic, smp};

const ROUNDS: u64 = 20_000;

static ADDED: AtomicU64 = AtomicU64::new(0);
static EXCHANGED: AtomicU64 = AtomicU64::new(0);
static RUNS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// The processor's number from four places: they must agree.
fn identity(index: usize) {
    let leaf1 = cpu::cpuid(1, 0).ebx >> 24;
    let leaf11 = cpu::cpuid(0xb, 0).edx;
    apic::enable();
    let x2apic = apic::id();
    println!("processor {index}: APIC id {leaf1} (leaf 1), {leaf11} (leaf 0xb), {x2apic} (x2APIC)");
    let index = index as u32;
    check_eq!(leaf1, index, "APIC id in leaf 1 of processor {index}");
    check_eq!(leaf11, index, "APIC id in leaf 0xb of processor {index}");
    check_eq!(x2apic, index, "x2APIC id of processor {index}");
}

fn work(index: usize) {
    RUNS[index].fetch_add(1, Ordering::AcqRel);
    identity(index);
    for _ in 0..ROUNDS {
        ADDED.fetch_add(1, Ordering::Relaxed);
        // The same by compare and exchange, which must fail where another one was faster.
        let _ =
            EXCHANGED.fetch_update(Ordering::AcqRel, Ordering::Acquire, |value| Some(value + 1));
    }
}

pub(crate) fn main() {
    let cpus = boot::cpus();
    smp::on_others(work);
    work(0);
    smp::wait_until_done();
    let expected = ROUNDS * u64::from(cpus);
    check_eq!(ADDED.load(Ordering::Acquire), expected, "sum of all additions");
    check_eq!(EXCHANGED.load(Ordering::Acquire), expected, "sum of all exchanges");
    for (index, runs) in RUNS.iter().enumerate() {
        let expected = u32::from(index < cpus as usize);
        check_eq!(runs.load(Ordering::Acquire), expected, "runs of processor {index}");
    }
    check_eq!(smp::started(), cpus, "processors that started");
    println!("{cpus} processors, {expected} additions");
}
