//! Crashes in the way its argument says: `triple-fault`, `unmapped` (jumps to an address nothing is
//! mapped at), `non-canonical`, `device-memory` (jumps to where no memory is) or `second`
//! (processor 1 triple-faults). There is no IDT, so the first exception is the end.

#![no_std]
#![no_main]

use core::arch::asm;

use runtime::interrupts::remove_idt;
use runtime::prelude::*;
use runtime::{paging, smp};

runtime::kernel!(v2, main);

/// An address without memory or device.
const HOLE: u64 = 0xd123_4000;

#[inline(never)]
fn jump(address: u64) -> ! {
    // SAFETY: it is not: the guest wants to crash.
    unsafe { asm!("jmp {}", in(reg) address, options(noreturn)) }
}

#[inline(never)]
fn triple_fault() -> ! {
    remove_idt();
    // SAFETY: it is not: the guest wants to crash.
    unsafe { asm!("ud2", options(noreturn)) }
}

#[inline(never)]
fn crash(way: &str) {
    match way {
        "triple-fault" => triple_fault(),
        "unmapped" => {
            remove_idt();
            jump(0x7f00_0000_0000)
        }
        "non-canonical" => {
            remove_idt();
            jump(0x8000_0000_0000_0000)
        }
        "device-memory" => {
            paging::map_identity(HOLE, HOLE + paging::PAGE);
            jump(HOLE)
        }
        "second" => {
            smp::on_others(|index| {
                if index == 1 {
                    triple_fault()
                }
            });
            loop {
                core::hint::spin_loop();
            }
        }
        other => panic!("{other:?} is no way to crash"),
    }
}

fn main() {
    let args = boot::args();
    println!("about to crash");
    crash(args.first().map_or("", String::as_str));
    println!("still alive");
}
