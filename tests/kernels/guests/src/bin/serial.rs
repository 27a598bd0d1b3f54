//! Console output of interface version 2: single bytes, buffers of all sizes, descriptors 1 and 2.

#![no_std]
#![no_main]

use runtime::hypercall::{STDERR, STDOUT};
use runtime::prelude::*;

runtime::kernel!(v2, main);

/// Bytes of the large buffer, in lines of 64.
const LARGE: usize = 1 << 20;

fn main() {
    let calls = runtime::v2();
    for byte in b"byte by byte\n" {
        calls.write_byte(*byte);
    }
    calls.write(b"one buffer\n");
    calls.write(b"");
    calls.write("two lines in one buffer: grüße\nand the second\n".as_bytes());
    calls.write(b"a line ");
    calls.write(b"in three ");
    calls.write(b"parts\n");
    check_eq!(
        calls.write_fd(STDOUT, b"standard output\n"),
        Ok(16),
        "bytes written to descriptor 1"
    );
    check_eq!(calls.write_fd(STDERR, b"standard error\n"), Ok(15), "bytes written to descriptor 2");
    check_eq!(calls.write_fd(STDOUT, b""), Ok(0), "bytes of an empty write");

    let mut large = vec![b'.'; LARGE];
    for (number, line) in large.chunks_mut(64).enumerate() {
        let text = format!("{number:05}");
        line[..5].copy_from_slice(text.as_bytes());
        line[63] = b'\n';
    }
    calls.write(&large);
    check_eq!(
        calls.write_fd(STDOUT, &large[..LARGE / 16]),
        Ok(LARGE / 16),
        "bytes of a large write"
    );
    // Bytes that are no text go through as they are.
    calls.write(&[0xff, 0xfe, 0, 1, b'\n']);
}
