//! Output by single bytes that do not leave the guest, followed at once by what the argument says:
//! `crash`, `hang` (loops with interrupts off), `halt`, `exit`, `fill` (far more than any buffer
//! holds), `mixed` (with output that does leave) or, with more processors, `turns` (one after the
//! other).

#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicUsize, Ordering};

use runtime::hypercall::STDOUT;
use runtime::interrupts::remove_idt;
use runtime::prelude::*;
use runtime::smp;

runtime::kernel!(v1, main);

/// Whose turn it is.
static TURN: AtomicUsize = AtomicUsize::new(0);
const TURNS: usize = 60;

fn say(text: &str) {
    text.bytes().for_each(|byte| runtime::v1().write_byte(byte));
}

fn count() -> usize {
    smp::started() as usize
}

fn take_turns(index: usize) {
    for turn in (index..TURNS).step_by(count()) {
        while TURN.load(Ordering::Acquire) != turn {
            core::hint::spin_loop();
        }
        say(&format!("turn {turn} of processor {index}\n"));
        TURN.store(turn + 1, Ordering::Release);
    }
}

fn main() {
    let args = boot::args();
    let then = args.first().map_or("", String::as_str);
    cpu::disable_interrupts();
    match then {
        "fill" => {
            for line in 0..1000 {
                say(&format!("line {line:04}\n"));
            }
        }
        "mixed" => {
            let calls = runtime::v1();
            for round in 0..20 {
                say(&format!("{round} byte "));
                check_eq!(calls.write(b"buffer "), Ok(()), "writing a buffer");
                say("byte ");
                check_eq!(calls.write_fd(STDOUT, b"file\n"), Ok(()), "writing to descriptor 1");
            }
        }
        "turns" => {
            smp::wait_until_started();
            smp::on_others(take_turns);
            take_turns(0);
            while TURN.load(Ordering::Acquire) < TURNS {
                core::hint::spin_loop();
            }
        }
        _ => say("a line\nand a part of one"),
    }
    match then {
        "crash" => {
            remove_idt();
            // SAFETY: it is not: the guest wants to crash.
            unsafe { asm!("ud2", options(noreturn)) }
        }
        "hang" => loop {
            core::hint::spin_loop();
        },
        "halt" => cpu::halt_forever(),
        "exit" => runtime::v1().exit(3),
        _ => {}
    }
}
