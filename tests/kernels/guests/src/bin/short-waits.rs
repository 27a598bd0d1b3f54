//! Waits whose interrupt comes about when they begin: each one ends, as nothing comes between STI
//! and the HLT after it, or the handler passes over HLT.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::apic;
use runtime::interrupts::{before_halt, set_handler, spurious};
use runtime::prelude::*;

runtime::kernel!(v2, main);

const VECTOR: u8 = 0x40;
const WAITS: u64 = 20_000;

static TICKS: AtomicU64 = AtomicU64::new(0);

/// Waits for one deadline, so many cycles from now.
fn wait(cycles: u64) {
    let before = TICKS.load(Ordering::Acquire);
    cpu::disable_interrupts();
    apic::set_deadline(cpu::tsc() + cycles);
    cpu::wait_for_interrupt();
    cpu::disable_interrupts();
    check_eq!(TICKS.load(Ordering::Acquire), before + 1, "interrupts of one wait");
}

fn main() {
    set_handler(VECTOR, |_| {
        TICKS.fetch_add(1, Ordering::AcqRel);
    });
    apic::enable();
    apic::set_timer_vector(VECTOR);
    // Up to 0.1 ms: the write of a deadline takes a third of that where an exit is slow.
    let most = boot::tsc_khz() / 10;
    (0..WAITS).for_each(|number| wait(number * 7919 % most));
    check_eq!(spurious(), 0, "spurious interrupts");
    println!("{WAITS} waits, {} interrupts before HLT", before_halt());
}
