//! Version 1's file calls have virtual buffers: page tables that loop, point nowhere, or have bits
//! that cannot be, under them. And calls of version 2, which this image does not declare.

#![no_std]
#![no_main]

use runtime::hypercall::errno::EFAULT;
use runtime::hypercall::v1::{Call, ReadParams, WriteParams};
use runtime::hypercall::{STDIN, STDOUT, guest, v2};
use runtime::mmio;
use runtime::paging::{PAGE, map_small, root};
use runtime::prelude::*;

runtime::kernel!(v1, main);

const PRESENT: u64 = 3;
const LARGE: u64 = 1 << 7;

#[repr(C, align(4096))]
struct Table([u64; 512]);

fn table(entry: u64) -> u64 {
    runtime::leak(Table([entry; 512])).0.as_ptr().addr() as u64
}

fn read(buf: u64, len: u64) -> i64 {
    let mut params = ReadParams { fd: STDIN, buf, len, ret: 77 };
    // SAFETY: the callers pass addresses under which no memory is.
    let made = unsafe { runtime::v1().call(Call::FileRead, &mut params) };
    check_eq!(made, Ok(()), "a block below 4 GiB");
    params.ret
}

fn write(buf: u64, len: u64) {
    let mut params = WriteParams { fd: STDOUT, buf, len };
    // SAFETY: as above.
    let made = unsafe { runtime::v1().call(Call::FileWrite, &mut params) };
    check_eq!(made, Ok(()), "a block below 4 GiB");
}

fn main() {
    let (root, _) = root();
    let end = boot::info().hardware_info.phys_addr_range.end;
    // What the 16 top-level entries from 256 on say; the processor itself never goes there.
    let empty = table(0);
    let itself = table(0);
    // SAFETY: the table is leaked and has no other user.
    unsafe { (itself as *mut [u64; 512]).write([itself | PRESENT; 512]) };
    let nowhere = table(0xd000_0000 | PRESENT);
    let beyond = table((end + PAGE) | PRESENT);
    let huge = table(0xd000_0000 | PRESENT | LARGE);
    let reserved = table(0x000f_ffff_ffff_f000 | PRESENT);
    let entries = [
        empty | PRESENT,
        0xd000_0000 | PRESENT,
        (end - PAGE) | PRESENT | LARGE,
        u64::MAX,
        0x000f_ffff_ffff_f000 | PRESENT,
        nowhere | PRESENT,
        beyond | PRESENT,
        huge | PRESENT,
        reserved | PRESENT,
        0,
    ];
    for (slot, entry) in (256_u64..).zip(entries) {
        mmio::write64(root + 8 * slot, entry);
        let at = 0xffff_0000_0000_0000 | slot << 39;
        for address in [at, at + PAGE - 1, at + (1 << 30) - 1, at + (1 << 39) - 8] {
            for len in [1, 16, PAGE + 1, 1 << 20, 1 << 40, u64::MAX] {
                check_eq!(
                    read(address, len),
                    -i64::from(EFAULT),
                    "entry {entry:#x}, {len:#x} bytes at {address:#x}"
                );
                write(address, len);
            }
        }
    }
    // A loop is memory: the table itself, again and again, as long as anyone wants. It is longer
    // than RAM, so it is refused.
    mmio::write64(root + 8 * 300, itself | PRESENT);
    let looping = 0xffff_0000_0000_0000 | 300 << 39;
    for len in [1 << 38, 1 << 30, u64::MAX] {
        check_eq!(read(looping, len), -i64::from(EFAULT), "{len:#x} bytes of a loop");
    }
    // The same page many times over is one that can be read into, a bit at a time: nothing comes.
    let page = runtime::leak(Table([0; 512]));
    for at in (0..16).map(|number| 0x5000_0000_0000 + number * PAGE) {
        check!(map_small(at, page.0.as_ptr().addr() as u64), "mapping {at:#x}");
    }
    check_eq!(read(0x5000_0000_0000, 16 * PAGE), 0, "the end of the input");

    // The other version's calls, with blocks anywhere.
    for call in v2::Call::ALL {
        if call != v2::Call::Exit && call.param_size() > 0 {
            for address in [0, end - 1, end, 0xd000_0000, 1 << 40, u64::MAX] {
                // SAFETY: no whole block is there.
                unsafe { guest::out(call.port(), 0, address) };
            }
        }
    }
    println!("all refused");
}
