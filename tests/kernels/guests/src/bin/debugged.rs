//! Something for a debugger to look at: a function that is called ten times, a counter that it
//! changes, a vector register with known contents, a page of its own, and a worker on each
//! processor. With the argument `halt` it halts for good in the end, and with `wait` it goes no
//! further than its preparations until a debugger sets `GO`.

#![no_std]
#![no_main]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use runtime::prelude::*;
use runtime::{paging, smp};

runtime::kernel!(v2, main);

/// The sum that `bump` builds.
#[unsafe(no_mangle)]
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Set by a debugger.
#[unsafe(no_mangle)]
static GO: AtomicU64 = AtomicU64::new(0);

/// Rounds of each worker.
#[unsafe(no_mangle)]
static WORKED: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];

/// A page that is mapped a second time, at `ALIAS`.
#[repr(align(4096))]
struct Page([AtomicU64; 512]);

#[unsafe(no_mangle)]
static PAGE: Page = Page([const { AtomicU64::new(0) }; 512]);

/// A guest-virtual address that differs from the physical one.
const ALIAS: u64 = 0x7000_0000_0000;

/// Adds to the counter.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn bump(step: u64) -> u64 {
    COUNTER.fetch_add(step, Ordering::Relaxed) + step
}

// Puts a known vector into XMM3, which is there at `vector_is_set`.
global_asm!(
    ".globl with_vector, vector_is_set",
    ".type with_vector, @function",
    "with_vector:",
    "mov eax, 0x12345678",
    "movd xmm3, eax",
    "pshufd xmm3, xmm3, 0",
    ".type vector_is_set, @function",
    "vector_is_set:",
    "nop",
    "ret",
);

unsafe extern "C" {
    safe fn with_vector();
}

/// The loop of each processor.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn worker(index: usize) {
    for _ in 0..3 {
        WORKED[index].fetch_add(index as u64 + 1, Ordering::Relaxed);
    }
}

fn work(index: usize) {
    worker(index);
}

/// Halts with two numbers in registers for a debugger to find.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dead_end(first: u64, second: u64) -> ! {
    println!("at the end with {first} and {second}");
    cpu::disable_interrupts();
    with_vector();
    cpu::halt_forever()
}

fn main() {
    smp::wait_until_started();
    PAGE.0[1].store(0x1122_3344_5566_7788, Ordering::Relaxed);
    let page = PAGE.0.as_ptr().addr() as u64;
    check!(paging::map_small(ALIAS, page), "a page at {ALIAS:#x}");
    // What comes before this is much more than what comes after it: debuggers that step the guest
    // begin here.
    if boot::args().iter().any(|arg| arg == "wait") {
        println!("waiting");
        while GO.load(Ordering::Relaxed) == 0 {
            core::hint::spin_loop();
        }
    }
    for step in 1..=10 {
        bump(step);
    }
    with_vector();
    smp::on_others(work);
    work(0);
    smp::wait_until_done();
    check_eq!(COUNTER.load(Ordering::Relaxed), 55, "the counter");
    for (index, worked) in WORKED.iter().enumerate().take(boot::cpus() as usize) {
        check_eq!(worked.load(Ordering::Relaxed), 3 * (index as u64 + 1), "worker {index}");
    }
    if boot::args().iter().any(|arg| arg == "halt") {
        dead_end(COUNTER.load(Ordering::Relaxed), 7);
    }
}
