//! Buffers of version 1's file calls have virtual addresses: the VMM must walk the page tables,
//! page by page.

#![no_std]
#![no_main]

use runtime::hypercall::errno::EFAULT;
use runtime::hypercall::v1::{Call, ReadParams, WriteParams};
use runtime::hypercall::{STDIN, STDOUT};
use runtime::paging::{PAGE, lookup, map_small};
use runtime::prelude::*;

runtime::kernel!(v1, main);

/// Virtual addresses far from anything that is mapped.
const WINDOW: u64 = 0x5000_0000_0000;

#[repr(C, align(4096))]
struct Page([u8; PAGE as usize]);

fn new_page() -> &'static mut Page {
    runtime::leak(Page([b'.'; PAGE as usize]))
}

fn write(fd: i32, buf: u64, len: u64) {
    let mut params = WriteParams { fd, buf, len };
    // SAFETY: the call reads pages of this guest, or nothing.
    let made = unsafe { runtime::v1().call(Call::FileWrite, &mut params) };
    check_eq!(made, Ok(()), "a block below 4 GiB");
}

fn read(buf: u64, len: u64) -> i64 {
    let mut params = ReadParams { fd: STDIN, buf, len, ret: 0x5a5a };
    // SAFETY: the call writes to pages that only this function's callers look at, or to nothing.
    let made = unsafe { runtime::v1().call(Call::FileRead, &mut params) };
    check_eq!(made, Ok(()), "a block below 4 GiB");
    params.ret
}

fn main() {
    // Two pages in a row whose memory is in the opposite order, and a hole after them.
    let (low, high) = (new_page(), new_page());
    let (low_at, high_at) = (low.0.as_ptr().addr() as u64, high.0.as_ptr().addr() as u64);
    let text = b"across the boundary of two pages\n";
    let before = 10;
    high.0[PAGE as usize - before..].copy_from_slice(&text[..before]);
    low.0[..text.len() - before].copy_from_slice(&text[before..]);
    check!(map_small(WINDOW, high_at), "mapping the first page");
    check!(map_small(WINDOW + PAGE, low_at), "mapping the second page");
    check_eq!(lookup(WINDOW).map(|m| m.physical), Some(high_at), "the first page");
    write(STDOUT, WINDOW + PAGE - before as u64, text.len() as u64);

    // Input that crosses the same boundary.
    let expected = b"typed by the tester\n";
    let mut got = 0;
    while got < expected.len() as u64 {
        let count = read(WINDOW + PAGE - 5 + got, expected.len() as u64 - got);
        check!(count > 0, "read gave {count}");
        if count <= 0 {
            break;
        }
        got += count as u64;
    }
    let at = WINDOW + PAGE - 5;
    let seen: Vec<u8> = (0..got).map(|offset| runtime::mmio::read8(at + offset)).collect();
    check_eq!(&seen[..], &expected[..], "input across the boundary of two pages");

    // Addresses that are not mapped, run into a hole, or are not canonical: an error, and no
    // output.
    write(STDOUT, WINDOW + 2 * PAGE, 16);
    write(STDOUT, 0x8000_0000_0000_0000, 16);
    write(STDOUT, u64::MAX - 3, 16);
    for buffer in [WINDOW + 2 * PAGE, 0x8000_0000_0000_0000, u64::MAX - 3, 0] {
        check_eq!(read(buffer, 16), -i64::from(EFAULT), "read into {buffer:#x}");
    }
}
