//! Console output of interface version 1: single bytes, buffers, descriptors 1 and 2, string
//! output.

#![no_std]
#![no_main]

use core::arch::asm;

use runtime::hypercall::{STDERR, STDOUT};
use runtime::prelude::*;

runtime::kernel!(v1, main);

fn main() {
    let calls = runtime::v1();
    for byte in b"byte by byte\n" {
        calls.write_byte(*byte);
    }
    // The upper bits of EAX are no part of the byte.
    for byte in b"odd upper bits\n" {
        cpu::out32(0x800, 0xabcd_ef00 | u32::from(*byte));
    }
    for byte in b"one byte wide\n" {
        cpu::out8(0x800, *byte);
    }
    let text = b"string output\n";
    // SAFETY: reads `text`.
    unsafe {
        asm!("rep outsb", in("dx") 0x800u16, inout("rsi") text.as_ptr() => _, inout("rcx") text.len() => _,
            options(nostack));
    }
    check_eq!(calls.write(b"one buffer\n"), Ok(()), "writing a buffer");
    check_eq!(calls.write_fd(STDOUT, b"standard output\n"), Ok(()), "writing to descriptor 1");
    check_eq!(calls.write_fd(STDERR, b"standard error\n"), Ok(()), "writing to descriptor 2");
    let mut large = vec![b'.'; 256 << 10];
    for (number, line) in large.chunks_mut(64).enumerate() {
        let text = format!("{number:05}");
        line[..5].copy_from_slice(text.as_bytes());
        line[63] = b'\n';
    }
    check_eq!(calls.write(&large), Ok(()), "writing a large buffer");
    // An image of version 1 has its RAM below 3 GiB, so that 32 bits name it.
    let stack = core::ptr::from_ref(&large).addr();
    check!(stack < 3 << 30, "the stack lies at {stack:#x}");
}
