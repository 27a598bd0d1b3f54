//! File calls with real files and everything about them wrong but the port: blocks that lie across
//! pages or out of RAM or in their own buffers, all lengths, all kinds of descriptors, numbers that
//! name nothing. Each has one right answer.

#![no_std]
#![no_main]

use runtime::hypercall::errno::{EBADF, EFAULT, EINVAL, ENAMETOOLONG, ENOENT};
use runtime::hypercall::file::{O_CREAT, O_RDWR, O_TRUNC};
use runtime::hypercall::guest;
use runtime::hypercall::v2::{
    Call, CloseParams, FstatParams, GetdentsParams, GetdentsResult, LseekParams, MkdirParams,
    OpenParams, ReadParams, StatParams, StatusResult, UnlinkParams, WriteParams,
};
use runtime::paging::PAGE;
use runtime::prelude::*;

runtime::kernel!(v2, main);

#[repr(C, align(4096))]
struct Pages([u8; 3 * PAGE as usize]);

const PATHS: [&str; 2] = ["/data/nerite-hostile\0", "/temporary\0"];

fn address<T>(value: &T) -> u64 {
    core::ptr::from_ref(value).addr() as u64
}

fn open(path: &str, flags: i32) -> i32 {
    let mut params = OpenParams { name: path.as_ptr().addr() as u64, flags, mode: 0o600, ret: 77 };
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

fn write(fd: i32, buf: u64, len: u64) -> i64 {
    let mut params = WriteParams { len, ret: 77, buf, fd, reserved: u32::MAX };
    // SAFETY: the call at most reads.
    unsafe { runtime::v2().call(Call::FileWrite, &mut params) };
    params.ret
}

fn read(fd: i32, buf: u64, len: u64) -> i64 {
    let mut params = ReadParams { len, ret: 77, buf, fd, reserved: u32::MAX };
    // SAFETY: the callers pass buffers of their own, or what is not memory.
    unsafe { runtime::v2().call(Call::FileRead, &mut params) };
    params.ret
}

fn seek(fd: i32, offset: i64, whence: u32) -> i64 {
    let mut params = LseekParams { offset, whence, fd };
    // SAFETY: the block has no address.
    unsafe { runtime::v2().call(Call::FileLseek, &mut params) };
    params.offset
}

fn fstat(fd: i32, attr: u64) -> i32 {
    let mut params = FstatParams { fd, reserved: 0, attr, ret: StatusResult { tag: 9, value: 9 } };
    // SAFETY: the callers pass buffers of their own, or what is not memory.
    unsafe { runtime::v2().call(Call::FileFstat, &mut params) };
    params.ret.errno().unwrap_or(0)
}

fn list(fd: i32, buf: u64, len: u64) -> GetdentsResult {
    let ret = GetdentsResult { tag: 9, reserved: 9, value: 9 };
    let mut params = GetdentsParams { fd, reserved: 0, buf, len, ret };
    // SAFETY: as above.
    unsafe { runtime::v2().call(Call::Getdents, &mut params) };
    params.ret
}

/// The end of the highest RAM.
fn end_of_ram() -> u64 {
    boot::memory().iter().map(|region| region.end).max().unwrap_or(0)
}

fn lengths(fd: i32) {
    let bytes = [b'x'; 64];
    let (start, end) = (address(&bytes), end_of_ram());
    check_eq!(write(fd, start, 0), 0, "a write of nothing");
    check_eq!(write(fd, start, 1), 1, "a write of one byte");
    for len in [u64::MAX, u64::MAX - start, u64::MAX / 2, 1 << 63, 1 << 47, end - start + 1] {
        check_eq!(write(fd, start, len), -i64::from(EFAULT), "a write of {len:#x} bytes");
        check_eq!(read(fd, start, len), -i64::from(EFAULT), "a read of {len:#x} bytes");
        check_eq!(list(fd, start, len).errno(), Some(EFAULT), "a listing of {len:#x} bytes");
    }
    // The last byte of RAM, and one more.
    check_eq!(write(fd, end - 1, 1), 1, "a write of the last byte of RAM");
    for (from, len) in
        [(end - 1, 2), (end, 1), (end - 8, 16), (u64::MAX, 1), (u64::MAX, 2), (0xd000_0000, 1)]
    {
        check_eq!(write(fd, from, len), -i64::from(EFAULT), "a write from {from:#x}");
        check_eq!(read(fd, from, len), -i64::from(EFAULT), "a read to {from:#x}");
    }
    check_eq!(seek(fd, 0, 2), 2, "the size of the file: not a byte of all that");
}

fn descriptors(fd: i32, closed: i32) {
    let mut bytes = [0_u8; 256];
    let buffer = bytes.as_mut_ptr().addr() as u64;
    for bad in [-1, i32::MIN, i32::MAX, closed, 1 << 20, 3 + 4096] {
        check_eq!(write(bad, buffer, 16), -i64::from(EBADF), "a write to {bad}");
        check_eq!(read(bad, buffer, 16), -i64::from(EBADF), "a read from {bad}");
        check_eq!(seek(bad, 0, 0), -i64::from(EBADF), "a seek in {bad}");
        check_eq!(fstat(bad, buffer), EBADF, "fstat of {bad}");
        check_eq!(list(bad, buffer, 256).errno(), Some(EBADF), "a listing of {bad}");
        check_eq!(close(bad), -EBADF, "close of {bad}");
    }
    // The number comes back with another file behind it.
    let again = open("/other\0", O_CREAT | O_RDWR);
    check_eq!(again, closed, "the lowest free number");
    check_eq!(read(again, buffer, 16), 0, "nothing of the file that had the number before");
    check_eq!(close(again), 0, "close");

    for whence in [3, 4, 0x8000_0000, u32::MAX] {
        check_eq!(seek(fd, 0, whence), -i64::from(EINVAL), "whence {whence:#x}");
    }
    for (offset, whence) in
        [(-1, 0), (i64::MIN, 0), (i64::MIN, 1), (i64::MIN, 2), (i64::MAX, 1), (i64::MAX, 2)]
    {
        check!(seek(fd, offset, whence) < 0, "a seek by {offset} from {whence}");
    }
    for kind in [2, 77, u32::MAX] {
        let path = c"/data".as_ptr().addr() as u64;
        let ret = StatusResult { tag: 9, value: 9 };
        let mut params = StatParams { name: path, kind, reserved: 0, attr: buffer, ret };
        // SAFETY: the call writes to `bytes`, if at all.
        unsafe { runtime::v2().call(Call::FileStat, &mut params) };
        check_eq!(params.ret.errno(), Some(EINVAL), "kind {kind} of stat");
    }
    for flags in [-1, 3, i32::MIN, i32::MAX] {
        let opened = open("/data/nerite-hostile-flags\0", flags);
        check!(opened < 0, "flags {flags:#x} gave {opened}");
    }
}

/// Paths that are their own block, have no end, or cross the end of RAM.
fn paths() {
    let end = end_of_ram();
    let calls: [fn(u64) -> i32; 3] = [
        |name| {
            let mut params = OpenParams { name, flags: 0, mode: 0, ret: 77 };
            // SAFETY: the call at most reads.
            unsafe { runtime::v2().call(Call::FileOpen, &mut params) };
            -params.ret
        },
        |name| {
            let mut params = UnlinkParams { name, ret: 77 };
            // SAFETY: as above.
            unsafe { runtime::v2().call(Call::FileUnlink, &mut params) };
            -params.ret
        },
        |path| {
            let mut params =
                MkdirParams { path, len: u64::MAX, ret: StatusResult { tag: 9, value: 9 } };
            // SAFETY: as above.
            unsafe { runtime::v2().call(Call::Mkdir, &mut params) };
            params.ret.errno().unwrap_or(0)
        },
    ];
    let endless = vec![b'/'; 1 << 16];
    for call in calls {
        for name in [end, u64::MAX, 0xd000_0000, 1 << 52] {
            check_eq!(call(name), EFAULT, "a path at {name:#x}");
        }
        check_eq!(call(endless.as_ptr().addr() as u64), ENAMETOOLONG, "a path without an end");
        check_eq!(call(c"".as_ptr().addr() as u64), ENOENT, "an empty path");
    }
    // A path that is the block it is named in.
    let mut params = OpenParams { name: 0, flags: 0, mode: 0, ret: 77 };
    params.name = address(&params);
    // SAFETY: the call reads the block and writes its result.
    unsafe { runtime::v2().call(Call::FileOpen, &mut params) };
    let ret = params.ret;
    check!(ret < 0, "a path that is a block gave {ret}");
}

/// Blocks that lie across pages, and buffers that are the block.
fn aliases(fd: i32) {
    let pages = runtime::leak(Pages([b'p'; 3 * PAGE as usize]));
    let start = pages.0.as_ptr().addr() as u64;
    for offset in [PAGE - 1, PAGE - 17, PAGE - 4, PAGE - 31] {
        let block = start + offset;
        let params = WriteParams { len: 4, ret: 77, buf: start, fd, reserved: 0 };
        // SAFETY: the block and its buffer lie in the pages, which nothing else uses.
        unsafe {
            (block as *mut WriteParams).write_unaligned(params);
            guest::out(Call::FileWrite.port(), 0, block);
            check_eq!(
                (block as *const WriteParams).read_unaligned().ret,
                4,
                "a block across pages"
            );
        }
    }
    // Reads over the block that asks: what was asked is what counts, and the result is the last
    // that is written.
    check_eq!(seek(fd, 0, 0), 0, "the beginning");
    let block = start + 64;
    let params = ReadParams { len: 16, ret: 77, buf: block, fd, reserved: 0 };
    // SAFETY: as above.
    unsafe {
        (block as *mut ReadParams).write_unaligned(params);
        guest::out(Call::FileRead.port(), 0, block);
        check_eq!((block as *const ReadParams).read_unaligned().ret, 16, "a read over its block");
    }
    let ret = StatusResult { tag: 9, value: 9 };
    let params = FstatParams { fd, reserved: 0, attr: block - 32, ret };
    // SAFETY: as above.
    unsafe {
        (block as *mut FstatParams).write_unaligned(params);
        guest::out(Call::FileFstat.port(), 0, block);
        let ret = (block as *const FstatParams).read_unaligned().ret;
        check_eq!(ret.errno(), None, "attributes over the block");
    }
    // A result field that is the last of RAM, and one that is not in it any more.
    let end = end_of_ram();
    for cut in [1, 8, 24, 31] {
        // SAFETY: the block ends beyond RAM, so nothing is done.
        unsafe { guest::out(Call::FileWrite.port(), 0, end - cut) };
    }
}

fn main() {
    for path in PATHS {
        let fd = open(path, O_CREAT | O_RDWR | O_TRUNC);
        check!(fd >= 3, "open of {path} gave {fd}");
        let other = open(path, O_RDWR);
        check_eq!(close(other), 0, "close");
        lengths(fd);
        descriptors(fd, other);
        aliases(fd);
        check_eq!(close(fd), 0, "close");
        let mut unlink = UnlinkParams { name: path.as_ptr().addr() as u64, ret: 77 };
        // SAFETY: the call reads the path.
        unsafe { runtime::v2().call(Call::FileUnlink, &mut unlink) };
        check_eq!({ unlink.ret }, 0, "unlink");
    }
    paths();
}
