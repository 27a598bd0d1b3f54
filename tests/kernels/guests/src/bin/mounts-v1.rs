//! A mounted directory through interface version 1: files are written from and read to
//! guest-virtual buffers.

#![no_std]
#![no_main]

use runtime::hypercall::errno::{EBADF, EEXIST, ENOENT};
use runtime::hypercall::file;
use runtime::hypercall::v1::{Call, CloseParams, LseekParams, OpenParams, UnlinkParams};
use runtime::prelude::*;

runtime::kernel!(v1, main);

const NAME: &core::ffi::CStr = c"/data/nerite-mounts-v1-test";
const MEGABYTE: usize = 1 << 20;

fn call<T: runtime::Block>(call: Call, params: &mut T) {
    // SAFETY: the blocks below hold addresses of paths only, which the calls read.
    let made = unsafe { runtime::v1().call(call, params) };
    check_eq!(made, Ok(()), "an address below 4 GiB");
}

fn open(flags: i32) -> i32 {
    let mut params =
        OpenParams { name: NAME.as_ptr().addr() as u64, flags, mode: 0o600, ret: 0x5a5a };
    call(Call::FileOpen, &mut params);
    params.ret
}

fn seek(fd: i32, offset: i64, whence: i32) -> i64 {
    let mut params = LseekParams { fd, offset, whence };
    call(Call::FileLseek, &mut params);
    params.offset
}

fn main() {
    let calls = runtime::v1();
    check_eq!(open(file::O_RDONLY), -ENOENT, "a file that is not there yet");
    let fd = open(file::O_RDWR | file::O_CREAT | file::O_EXCL);
    check_eq!(fd, 3, "the new file");
    check_eq!(open(file::O_RDWR | file::O_CREAT | file::O_EXCL), -EEXIST, "the new file once more");
    let mut bytes: Vec<u8> = (0..MEGABYTE).map(|at| (at * 7 + at / 255) as u8).collect();
    let copy = bytes.clone();
    // Not at the beginning of a page.
    check_eq!(calls.write_fd(fd, &bytes[1..]), Ok(()), "write");
    check_eq!(seek(fd, 0, file::SEEK_CUR), MEGABYTE as i64 - 1, "position after the write");
    check_eq!(seek(fd, -1, file::SEEK_SET), -1, "seek before the beginning");
    check_eq!(seek(fd, 0, file::SEEK_SET), 0, "rewind");
    bytes.fill(0);
    check_eq!(calls.read_fd(fd, &mut bytes[1..]), Ok(MEGABYTE - 1), "read");
    check!(bytes[1..] == copy[1..], "the bytes that were read are not those that were written");
    check_eq!(calls.read_fd(fd, &mut bytes), Ok(0), "read at the end");
    let mut close = CloseParams { fd, ret: 0x5a5a };
    call(Call::FileClose, &mut close);
    check_eq!({ close.ret }, 0, "close");
    check_eq!(calls.read_fd(fd, &mut bytes), Err(EBADF), "read after close");
    let mut unlink = UnlinkParams { name: NAME.as_ptr().addr() as u64, ret: 0x5a5a };
    call(Call::FileUnlink, &mut unlink);
    check_eq!({ unlink.ret }, 0, "unlink");
    check_eq!(open(file::O_RDONLY), -ENOENT, "open after unlink");
}
