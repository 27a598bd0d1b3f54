//! Times a notification: a write to a network card's doorbell, which the host's kernel turns into
//! an eventfd's signal. Argument: how many.
//!
//! The queues are empty: what the card's thread does about a notification is to look and to find
//! nothing.

#![no_std]
#![no_main]

#[allow(dead_code, reason = "others use the rest")]
#[path = "../net/raw.rs"]
mod raw;

use raw::{READY, Registers, Ring, SIZE, VERSION_1};
use runtime::prelude::*;

runtime::kernel!(v2, main);

fn main() {
    let count: u64 = boot::args()
        .first()
        .and_then(|arg| arg.parse().ok())
        .expect("wants a number of notifications");
    let Some(card) = Registers::find() else {
        check!(false, "there is no network card");
        return;
    };
    card.negotiate(VERSION_1);
    let rings = [Ring::new(), Ring::new()];
    for (index, ring) in (0..).zip(&rings) {
        card.set_queue(index, SIZE, ring.parts);
    }
    card.set_status(READY);
    // What is set up at the first one is not what the others cost.
    card.kick(0);
    let start = cpu::tsc();
    (0..count).for_each(|_| card.kick(0));
    let cycles = cpu::tsc() - start;
    check_eq!(card.status(), READY, "the status after notifications of an empty queue");
    let nanoseconds = u128::from(cycles) * 1_000_000 / u128::from(boot::tsc_khz());
    println!("ioeventfd: {} ns", nanoseconds / u128::from(count.max(1)));
}
