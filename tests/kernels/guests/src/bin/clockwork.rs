//! Timers of all processors: in each round every one of them sets a deadline and halts. One
//! interrupt comes, none early, and a state that depends on all rounds before is right in the end:
//! the host saves the guest meanwhile, and lets it go on in another process.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::interrupts::{set_handler, spurious};
use runtime::prelude::*;
use runtime::{apic, smp};

runtime::kernel!(v2, main);

const VECTOR: u8 = 0x40;
const MAX_CPUS: usize = 16;

/// Number of interrupts of each processor, and the time of the last one.
static TICKS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
static LAST: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// State of each processor after its last round.
static STATES: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Number of rounds, from the first argument.
static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// A linear congruential generator.
fn next(state: u64) -> u64 {
    state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}

fn work(index: usize) {
    apic::enable();
    apic::set_timer_vector(VECTOR);
    let mut state = index as u64;
    for round in 1..=ROUNDS.load(Ordering::Acquire) {
        state = next(state);
        let before = cpu::tsc();
        // 1 to 4 ms.
        let deadline = before + (1000 + (state >> 32) % 3000) * boot::tsc_khz() / 1000;
        apic::set_deadline(deadline);
        // See the guest `timer`.
        let write = cpu::tsc() - before;
        while TICKS[index].load(Ordering::Acquire) < round {
            cpu::disable_interrupts();
            if TICKS[index].load(Ordering::Acquire) < round {
                cpu::wait_for_interrupt();
            }
        }
        let came = LAST[index].load(Ordering::Acquire);
        check!(came + write >= deadline, "processor {index}, round {round}: too early");
        check_eq!(TICKS[index].load(Ordering::Acquire), round, "interrupts of processor {index}");
        if index == 0 && round % 50 == 0 {
            println!("round {round}");
        }
    }
    cpu::disable_interrupts();
    STATES[index].store(state, Ordering::Release);
}

fn main() {
    let rounds = boot::args().first().and_then(|arg| arg.parse().ok());
    let rounds: u64 = rounds.expect("wants a number of rounds");
    ROUNDS.store(rounds, Ordering::Release);
    set_handler(VECTOR, |_| {
        let index = apic::id() as usize;
        LAST[index].store(cpu::tsc(), Ordering::Release);
        TICKS[index].fetch_add(1, Ordering::AcqRel);
    });
    smp::wait_until_started();
    smp::on_others(work);
    work(0);
    smp::wait_until_done();
    for (index, state) in STATES.iter().enumerate().take(boot::cpus() as usize) {
        let expected = (0..rounds).fold(index as u64, |state, _| next(state));
        check_eq!(state.load(Ordering::Acquire), expected, "state of processor {index}");
    }
    check_eq!(spurious(), 0, "spurious interrupts");
}
