//! The local APIC's timer with a count, once and periodic, and MONITOR and MWAIT, which at the
//! least do no harm.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::apic;
use runtime::interrupts::{set_handler, spurious};
use runtime::prelude::*;

runtime::kernel!(v2, main);

const VECTOR: u8 = 0x40;
const LVT_TIMER: u32 = 0x832;
const INITIAL_COUNT: u32 = 0x838;
const CURRENT_COUNT: u32 = 0x839;
const DIVIDE: u32 = 0x83e;
const PERIODIC: u64 = 1 << 17;

static TICKS: AtomicU64 = AtomicU64::new(0);

fn wait_for(ticks: u64, halting: bool) {
    loop {
        cpu::disable_interrupts();
        if TICKS.load(Ordering::Acquire) >= ticks {
            return;
        }
        if halting {
            cpu::wait_for_interrupt();
        } else {
            cpu::enable_interrupts();
            (0..1000).for_each(|_| core::hint::spin_loop());
        }
    }
}

/// Counts in a millisecond of the time stamp counter, with the divider at 1.
fn calibrate() -> u64 {
    cpu::wrmsr(LVT_TIMER, 1 << 16);
    cpu::wrmsr(DIVIDE, 0b1011);
    cpu::wrmsr(INITIAL_COUNT, u32::MAX.into());
    let (start, before) = (cpu::tsc(), cpu::rdmsr(CURRENT_COUNT));
    while cpu::tsc() - start < 20 * boot::tsc_khz() {
        core::hint::spin_loop();
    }
    let counted = before - cpu::rdmsr(CURRENT_COUNT);
    cpu::wrmsr(INITIAL_COUNT, 0);
    counted / 20
}

fn mwait() {
    let word = 0_u64;
    // SAFETY: MONITOR reads the word's line, and MWAIT ends with an interrupt at the latest; here
    // it does nothing.
    unsafe {
        core::arch::asm!("monitor", in("rax") &raw const word, in("ecx") 0, in("edx") 0, options(nostack));
        core::arch::asm!("mwait", in("eax") 0, in("ecx") 0, options(nostack));
    }
}

fn main() {
    set_handler(VECTOR, |_| {
        TICKS.fetch_add(1, Ordering::AcqRel);
    });
    apic::enable();
    let millisecond = calibrate();
    println!("{millisecond} counts in a millisecond");
    check!((100_000..100_000_000).contains(&millisecond), "{millisecond} counts in a millisecond");
    cpu::wrmsr(LVT_TIMER, VECTOR.into());
    for round in 1..=10 {
        let start = cpu::tsc();
        cpu::wrmsr(INITIAL_COUNT, 2 * millisecond);
        wait_for(round, round % 2 == 0);
        let microseconds = (cpu::tsc() - start) * 1000 / boot::tsc_khz();
        check!(microseconds >= 1500, "2 ms took {microseconds} us");
        check_eq!(TICKS.load(Ordering::Acquire), round, "interrupts of a timer that is set once");
        check_eq!(cpu::rdmsr(CURRENT_COUNT), 0, "the count of a timer that is through");
    }
    cpu::wrmsr(LVT_TIMER, PERIODIC | u64::from(VECTOR));
    cpu::wrmsr(INITIAL_COUNT, 2 * millisecond);
    wait_for(15, true);
    wait_for(20, false);
    cpu::wrmsr(INITIAL_COUNT, 0);
    mwait();
    check_eq!(spurious(), 0, "spurious interrupts");
    println!("the timer ticks");
}
