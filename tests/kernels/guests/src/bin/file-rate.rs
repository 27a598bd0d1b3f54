//! Writes a file in the mounted directory `/data` and reads it back, and says how fast that was.
//! Arguments: how many MiB, and how many KiB at a time (1024).

#![no_std]
#![no_main]

use runtime::hypercall::file;
use runtime::hypercall::v2::{Call, LseekParams, OpenParams, UnlinkParams};
use runtime::prelude::*;

runtime::kernel!(v2, main);

const NAME: &core::ffi::CStr = c"/data/nerite-file-rate";

fn report(what: &str, bytes: usize, cycles: u64) {
    let nanoseconds = u128::from(cycles) * 1_000_000 / u128::from(boot::tsc_khz());
    println!("{what}: {} MiB/s", (bytes as u128 * 1_000_000_000 / nanoseconds.max(1)) >> 20);
}

fn main() {
    let args = boot::args();
    let number = |index: usize| args.get(index).and_then(|arg| arg.parse::<usize>().ok());
    let mebibytes = number(0).expect("wants a number of MiB");
    let size = number(1).unwrap_or(1024) << 10;
    let (count, calls) = ((mebibytes << 20) / size, runtime::v2());
    let mut bytes = vec![0x5a_u8; size];

    let flags = file::O_RDWR | file::O_CREAT | file::O_TRUNC;
    let mut open = OpenParams { name: NAME.as_ptr().addr() as u64, flags, mode: 0o600, ret: 0 };
    // SAFETY: the call reads the path.
    unsafe { calls.call(Call::FileOpen, &mut open) };
    let fd = open.ret;
    check!(fd >= 3, "open gave {fd}");
    let start = cpu::tsc();
    for _ in 0..count {
        check_eq!(calls.write_fd(fd, &bytes), Ok(size), "write");
    }
    report("write", count * size, cpu::tsc() - start);
    let mut seek = LseekParams { offset: 0, whence: file::SEEK_SET.cast_unsigned(), fd };
    // SAFETY: the block has no address.
    unsafe { calls.call(Call::FileLseek, &mut seek) };
    check_eq!(seek.offset, 0, "rewind");
    bytes.fill(0);
    let start = cpu::tsc();
    for _ in 0..count {
        check_eq!(calls.read_fd(fd, &mut bytes), Ok(size), "read");
    }
    report("read", count * size, cpu::tsc() - start);
    check!(bytes.iter().all(|&byte| byte == 0x5a), "other bytes were read than written");
    let mut unlink = UnlinkParams { name: NAME.as_ptr().addr() as u64, ret: 0 };
    // SAFETY: the call reads the path.
    unsafe { calls.call(Call::FileUnlink, &mut unlink) };
    check_eq!({ unlink.ret }, 0, "unlink");
}
