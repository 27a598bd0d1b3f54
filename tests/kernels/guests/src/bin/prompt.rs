//! Asks a question without ending the line and waits for the answer; meanwhile the other processors
//! go on.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runtime::prelude::*;
use runtime::smp;

runtime::kernel!(v2, main);

static ANSWERED: AtomicBool = AtomicBool::new(false);
static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// Makes exits of its own, some of them output.
fn go_on(index: usize) {
    for round in 0..20 {
        check_eq!(cpu::in8(0x3000), 0xff, "a byte from a port where nothing is");
        ROUNDS.fetch_add(1, Ordering::AcqRel);
        if index == 1 && round == 19 && !ANSWERED.load(Ordering::Acquire) {
            print!("[still here] ");
        }
    }
}

fn main() {
    smp::wait_until_started();
    print!("What is your name? ");
    smp::on_others(go_on);
    let mut answer = vec![];
    while let Some(byte) = runtime::v2().read_byte().filter(|&byte| byte != b'\n') {
        answer.push(byte);
    }
    ANSWERED.store(true, Ordering::Release);
    smp::wait_until_done();
    println!("Hello, {}!", String::from_utf8_lossy(&answer));
    check_eq!(
        ROUNDS.load(Ordering::Acquire),
        20 * u64::from(boot::cpus() - 1),
        "rounds of the others"
    );
}
