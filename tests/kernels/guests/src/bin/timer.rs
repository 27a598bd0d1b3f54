//! The local APIC's timer in TSC-deadline mode: each deadline brings one interrupt, none comes
//! early, and HLT ends with it.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::interrupts::{set_handler, spurious};
use runtime::prelude::*;
use runtime::{apic, smp};

runtime::kernel!(v2, main);

const VECTOR: u8 = 0x40;
const ROUNDS: u64 = 10;

/// Interrupts of all processors, and the time of the last one.
static TICKS: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);
static OTHERS: AtomicU64 = AtomicU64::new(0);

fn milliseconds(count: u64) -> u64 {
    count * boot::tsc_khz()
}

/// Waits for a deadline that the interrupt must not come before, running on or halting meanwhile.
fn round(index: u64, halting: bool) {
    let before = cpu::tsc();
    let deadline = before + milliseconds(2);
    apic::set_deadline(deadline);
    // KVM reads its clock, then the counter. Where its own processor is emulated and loses the
    // host's between the two, the interrupt comes early by that time, which is part of the write.
    let write = cpu::tsc() - before;
    while TICKS.load(Ordering::Acquire) <= index {
        if halting {
            cpu::disable_interrupts();
            if TICKS.load(Ordering::Acquire) <= index {
                cpu::wait_for_interrupt();
            }
        } else {
            core::hint::spin_loop();
        }
    }
    let came = LAST.load(Ordering::Acquire);
    check!(
        came + write >= deadline,
        "interrupt {index} came {} cycles early, after a write of {write}",
        deadline - came
    );
    check_eq!(TICKS.load(Ordering::Acquire), index + 1, "interrupts after deadline {index}");
}

/// Another processor's own timer.
fn on_another(_: usize) {
    apic::enable();
    apic::set_timer_vector(VECTOR + 1);
    apic::set_deadline(cpu::tsc() + milliseconds(1));
    cpu::wait_for_interrupt();
    cpu::disable_interrupts();
}

fn main() {
    check!(apic::has_tsc_deadline(), "CPUID does not report TSC-deadline mode");
    set_handler(VECTOR, |_| {
        LAST.store(cpu::tsc(), Ordering::Release);
        TICKS.fetch_add(1, Ordering::AcqRel);
    });
    set_handler(VECTOR + 1, |_| {
        OTHERS.fetch_add(1, Ordering::AcqRel);
    });
    apic::enable();
    apic::set_timer_vector(VECTOR);
    cpu::enable_interrupts();
    (0..ROUNDS).for_each(|index| round(index, false));
    (ROUNDS..2 * ROUNDS).for_each(|index| round(index, true));

    // A deadline in the past comes at once.
    cpu::enable_interrupts();
    apic::set_deadline(1);
    while TICKS.load(Ordering::Acquire) == 2 * ROUNDS {
        core::hint::spin_loop();
    }
    check_eq!(TICKS.load(Ordering::Acquire), 2 * ROUNDS + 1, "interrupts in all");
    // One that is taken back in time never comes.
    let before = loop {
        let before = TICKS.load(Ordering::Acquire);
        let deadline = cpu::tsc() + milliseconds(5);
        apic::set_deadline(deadline);
        apic::set_deadline(0);
        if cpu::tsc() < deadline {
            break before;
        }
    };
    let end = cpu::tsc() + milliseconds(10);
    while cpu::tsc() < end {
        core::hint::spin_loop();
    }
    check_eq!(TICKS.load(Ordering::Acquire), before, "interrupts after a deadline was taken back");
    check_eq!(spurious(), 0, "spurious interrupts");

    smp::on_others(on_another);
    smp::wait_until_done();
    check_eq!(
        OTHERS.load(Ordering::Acquire),
        u64::from(boot::cpus()) - 1,
        "interrupts of the other processors"
    );
    println!("{} deadlines", 2 * ROUNDS + 1);
}
