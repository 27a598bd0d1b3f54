//! Processor 1 (the only one in a machine with one) ends the machine while the others do what the
//! argument says: `loop`, `halt`, `wait` (halting with interrupts on), `exits`, or `read` (waiting
//! for input).

#![no_std]
#![no_main]

use runtime::prelude::*;
use runtime::{apic, smp};

runtime::kernel!(v2, main);

fn others(index: usize) {
    if index == 1 {
        leave();
    }
    stay();
}

fn stay() {
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
        "read" => {
            let _ = runtime::v2().read(&mut [0; 16]);
            panic!("there was no input to come");
        }
        other => panic!("{other:?} is nothing to do"),
    }
}

/// Gives the others 20 ms to get into what they do, then ends the machine.
fn leave() {
    let end = cpu::tsc() + 20 * boot::tsc_khz();
    while cpu::tsc() < end {
        core::hint::spin_loop();
    }
    println!("leaving");
    let ok = runtime::check::report();
    runtime::exit(if ok { 7 } else { 1 });
}

fn main() {
    smp::wait_until_started();
    if boot::cpus() == 1 {
        leave();
    }
    smp::on_others(others);
    stay();
}
