//! Too much of something, as the argument says: `log` (calls that are wrong), `console`, `exits`,
//! `ends` (all processors end the machine at once), `files` (as many as there are), `bytes` (as
//! many as there are), `memory` (all of it).

#![no_std]
#![no_main]

extern crate alloc;

use runtime::hypercall::errno::{EMFILE, ENOSPC};
use runtime::hypercall::file::{O_CREAT, O_RDWR};
use runtime::hypercall::v2::{Call, CloseParams, MkdirParams, OpenParams, StatusResult};
use runtime::hypercall::{guest, v1};
use runtime::prelude::*;
use runtime::{mmio, smp};

runtime::kernel!(v2, main);

fn open(path: &str) -> i32 {
    let name = path.as_ptr().addr() as u64;
    let mut params = OpenParams { name, flags: O_CREAT | O_RDWR, mode: 0o600, ret: 77 };
    // SAFETY: the call reads the path, which ends with a zero.
    unsafe { runtime::v2().call(Call::FileOpen, &mut params) };
    params.ret
}

fn close(fd: i32) -> i32 {
    let mut params = CloseParams { fd, ret: 77 };
    // SAFETY: the block has no address.
    unsafe { runtime::v2().call(Call::FileClose, &mut params) };
    params.ret
}

fn log(_: usize) {
    for round in 0..3000_u64 {
        // SAFETY: no block is at these addresses.
        unsafe {
            guest::out(Call::FileWrite.port(), 0, u64::MAX - round);
            guest::out(v1::Call::FileRead.port(), 0xd000_0000 + round as u32, 0);
        }
        cpu::out32(0x9000 + round as u16, 1);
    }
}

fn exits(_: usize) {
    for _ in 0..5000 {
        let _ = cpu::in8(0x9000);
    }
}

fn console(index: usize) {
    for round in 0..500 {
        println!("{index} {round} ...............................................................");
        runtime::v2().write_byte(b'.');
    }
}

/// Until there is no number left, twice: what is closed comes back.
fn files() {
    for _ in 0..2 {
        let mut opened = Vec::new();
        let last = loop {
            let fd = open("/file\0");
            if fd < 0 {
                break fd;
            }
            opened.push(fd);
        };
        check_eq!(last, -EMFILE, "one descriptor too many");
        check_eq!(opened.len(), 32, "descriptors");
        opened.iter().for_each(|fd| check_eq!(close(*fd), 0, "close of {fd}"));
    }
    // Names take memory of the VMM: there is an end of them.
    let mut made = 0;
    let errno = loop {
        let path = alloc::format!("/d{made}\0");
        let ret = StatusResult { tag: 9, value: 9 };
        let mut params = MkdirParams { path: path.as_ptr().addr() as u64, len: 0, ret };
        // SAFETY: the call reads the path.
        unsafe { runtime::v2().call(Call::Mkdir, &mut params) };
        match params.ret.errno() {
            None if made < 100_000 => made += 1,
            errno => break errno,
        }
    };
    check_eq!(errno, Some(ENOSPC), "one name too many");
    println!("{made} directories");
}

fn bytes() {
    let calls = runtime::v2();
    let fd = open("/large\0");
    let chunk = vec![7; 100_000];
    let mut written = 0;
    let errno = loop {
        match calls.write_fd(fd, &chunk) {
            Ok(count) => written += count,
            Err(errno) => break errno,
        }
    };
    check_eq!((errno, written), (ENOSPC, 1 << 20), "bytes in temporary files");
    check_eq!(close(fd), 0, "close");
}

/// Touches every page there is, beyond its own image.
fn memory() {
    let image_end = boot::info().load_info.kernel_image_addr_range.end;
    let mut pages = 0_u64;
    for region in boot::memory() {
        let start = region.start.max(image_end + (4 << 20)).next_multiple_of(4096);
        runtime::paging::map_identity(start, region.end);
        for page in (start..region.end).step_by(4096) {
            mmio::write64(page, page);
            pages += 1;
        }
    }
    check!(pages > 10_000, "only {pages} pages");
}

fn main() {
    let args = boot::args();
    let everywhere = |work: fn(usize)| {
        smp::on_others(work);
        work(0);
        smp::wait_until_done();
    };
    match args.first().map_or("", String::as_str) {
        "log" => everywhere(log),
        "console" => everywhere(console),
        "exits" => everywhere(exits),
        "ends" => {
            println!("ending");
            everywhere(|_| runtime::exit(9));
        }
        "files" => files(),
        "bytes" => bytes(),
        "memory" => memory(),
        other => panic!("{other:?} is no flood"),
    }
}
