//! Loops of known length, for `cargo xtask bench cpu`: after each, its name and the number of
//! instructions that it took are printed, and after all of them it begins again.
//!
//! One image for all: a multiboot kernel with load addresses, and a program for Linux, which leaves
//! out what only a kernel can do and prints 0 for it.

#![no_std]
#![no_main]

#[path = "../cpu_loops/entry.rs"]
mod entry;
#[path = "../cpu_loops/loops.rs"]
mod loops;

use loops::{LOOPS, Loop, Needs};

/// Writes text where the host reads it.
type Write = fn(&[u8]);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// Runs all loops again and again; those of a kernel only if this is one.
fn run(is_kernel: bool, write: Write) -> ! {
    loops::link_ring();
    write(b"start 0\n");
    loop {
        for Loop { name, length, iterations, needs, run } in LOOPS {
            let iterations = if *needs == Needs::Kernel && !is_kernel { 0 } else { *iterations };
            if iterations != 0 {
                // SAFETY: the memory that the loops use is theirs, and they have the rights they
                // need.
                unsafe { run(iterations) };
            }
            write(name.as_bytes());
            write(b" ");
            number(length * iterations, write);
            write(b"\n");
        }
    }
}

/// Writes a number in decimal.
fn number(mut value: u64, write: Write) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        // A remainder of a division by 10 fits a byte.
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    write(&digits[first..]);
}
