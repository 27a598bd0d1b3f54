//! Prints a line, waits for the file `/data/go`, and prints another: a guest to save and to clone,
//! for `cargo xtask bench clone`. With the argument `halt` it waits for nothing, halted.

#![no_std]
#![no_main]

use runtime::apic;
use runtime::hypercall::v2::{Call, OpenParams};
use runtime::prelude::*;

runtime::kernel!(v2, main);

fn is_open() -> bool {
    let name = c"/data/go".as_ptr().addr() as u64;
    let mut params = OpenParams { name, flags: 0, mode: 0, ret: -1 };
    // SAFETY: the call reads the path.
    unsafe { runtime::v2().call(Call::FileOpen, &mut params) };
    params.ret >= 0
}

fn main() {
    println!("at the gate");
    if boot::args().first().is_some_and(|word| word == "halt") {
        apic::enable();
        loop {
            cpu::wait_for_interrupt();
        }
    }
    while !is_open() {
        core::hint::spin_loop();
    }
    println!("through it");
}
