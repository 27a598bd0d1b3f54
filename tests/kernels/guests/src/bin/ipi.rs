//! Interrupts from processor to processor wake one that halts, each exactly once. Wants two
//! processors or more.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use runtime::entry::MAX_CPUS;
use runtime::interrupts::set_handler;
use runtime::prelude::*;
use runtime::{apic, smp};

runtime::kernel!(v2, main);

const ONE: u8 = 0x50;
const ALL: u8 = 0x51;
const OWN: u8 = 0x52;
const ROUNDS: u32 = 25;

static RECEIVED: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
static BROADCASTS: AtomicU32 = AtomicU32::new(0);
static OWN_RECEIVED: AtomicU32 = AtomicU32::new(0);
static READY: AtomicU32 = AtomicU32::new(0);

fn count_own(_: &mut runtime::interrupts::Frame) {
    RECEIVED[apic::id() as usize].fetch_add(1, Ordering::AcqRel);
}

/// Halts until all of processor 0's interrupts came.
fn receive(index: usize) {
    apic::enable();
    READY.fetch_add(1, Ordering::AcqRel);
    while RECEIVED[index].load(Ordering::Acquire) < ROUNDS
        || BROADCASTS.load(Ordering::Acquire) < boot::cpus() - 1
    {
        // What comes between the look and the HLT must not be lost.
        cpu::disable_interrupts();
        if RECEIVED[index].load(Ordering::Acquire) < ROUNDS
            || BROADCASTS.load(Ordering::Acquire) < boot::cpus() - 1
        {
            cpu::wait_for_interrupt();
        }
    }
    cpu::disable_interrupts();
}

fn wait_for(counter: &AtomicU32, value: u32) {
    while counter.load(Ordering::Acquire) < value {
        core::hint::spin_loop();
    }
}

fn main() {
    let cpus = boot::cpus();
    check!(cpus >= 2, "this guest wants two processors");
    set_handler(ONE, count_own);
    set_handler(ALL, |_| {
        BROADCASTS.fetch_add(1, Ordering::AcqRel);
    });
    set_handler(OWN, |_| {
        OWN_RECEIVED.fetch_add(1, Ordering::AcqRel);
    });
    apic::enable();
    smp::on_others(receive);
    wait_for(&READY, cpus - 1);
    for round in 0..ROUNDS {
        for target in 1..cpus {
            apic::send(target, ONE);
            // One at a time: two of a kind that wait become one.
            wait_for(&RECEIVED[target as usize], round + 1);
        }
    }
    apic::send_to_others(ALL);
    // The last broadcast to arrive is seen by those that look after it; wake the others again.
    wait_for(&BROADCASTS, cpus - 1);
    for target in 1..cpus {
        apic::send(target, OWN);
    }
    smp::wait_until_done();

    cpu::enable_interrupts();
    let before = OWN_RECEIVED.load(Ordering::Acquire);
    apic::send_to_self(OWN);
    wait_for(&OWN_RECEIVED, before + 1);
    cpu::disable_interrupts();

    for target in 1..cpus {
        let received = RECEIVED[target as usize].load(Ordering::Acquire);
        check_eq!(received, ROUNDS, "interrupts of processor {target}");
    }
    check_eq!(RECEIVED[0].load(Ordering::Acquire), 0, "interrupts of processor 0");
    check_eq!(BROADCASTS.load(Ordering::Acquire), cpus - 1, "broadcasts received");
    println!("{} interrupts", ROUNDS * (cpus - 1));
}
