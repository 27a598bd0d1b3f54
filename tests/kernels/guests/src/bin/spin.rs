//! Runs without end in the way its argument says, until the VMM stops it: `loop` (interrupts off),
//! `halt` (interrupts off), `wait` (halting with interrupts on), `exits` (one port access after
//! another) or `print`. With more processors, all do the same.

#![no_std]
#![no_main]

use runtime::prelude::*;
use runtime::{apic, smp};

runtime::kernel!(v2, main);

fn spin(index: usize) {
    let args = boot::args();
    match args.first().map_or("", String::as_str) {
        "loop" => loop {
            core::hint::spin_loop();
        },
        "halt" => cpu::halt_forever(),
        "wait" => {
            apic::enable();
            loop {
                cpu::wait_for_interrupt();
            }
        }
        "exits" => loop {
            let _ = cpu::in8(0x3000);
        },
        "print" => loop {
            println!("processor {index} goes on and on");
        },
        other => panic!("{other:?} is no way to spin"),
    }
}

fn main() {
    cpu::disable_interrupts();
    smp::wait_until_started();
    println!("spinning");
    smp::on_others(spin);
    spin(0);
}
