//! File calls of interface version 1: the standard streams work, nothing of the host is there,
//! temporary files work.

#![no_std]
#![no_main]

use runtime::hypercall::errno::{EBADF, EINVAL, ENOENT};
use runtime::hypercall::v1::{Call, CloseParams, LseekParams, OpenParams, UnlinkParams};
use runtime::hypercall::{STDERR, STDIN, STDOUT, file};
use runtime::prelude::*;

runtime::kernel!(v1, main);

/// A result field before the call: no host answers this.
const UNTOUCHED: i32 = 0x5a5a_5a5a;

fn address(path: &core::ffi::CStr) -> u64 {
    path.as_ptr().addr() as u64
}

fn call<T: runtime::Block>(call: Call, params: &mut T) {
    // SAFETY: the blocks below hold addresses of paths only, which the calls read.
    let made = unsafe { runtime::v1().call(call, params) };
    check_eq!(made, Ok(()), "an address below 4 GiB");
}

fn open(path: &core::ffi::CStr, flags: i32) -> i32 {
    let mut params = OpenParams { name: address(path), flags, mode: 0o644, ret: UNTOUCHED };
    call(Call::FileOpen, &mut params);
    params.ret
}

fn close(fd: i32) -> i32 {
    let mut params = CloseParams { fd, ret: UNTOUCHED };
    call(Call::FileClose, &mut params);
    params.ret
}

/// The new position; version 1 knows no error but -1.
fn lseek(fd: i32, whence: i32) -> i64 {
    let mut params = LseekParams { fd, offset: 0, whence };
    call(Call::FileLseek, &mut params);
    params.offset
}

fn unlink(path: &core::ffi::CStr) -> i32 {
    let mut params = UnlinkParams { name: address(path), ret: UNTOUCHED };
    call(Call::FileUnlink, &mut params);
    params.ret
}

fn main() {
    let calls = runtime::v1();
    for fd in [3, 1000, -1, i32::MAX, i32::MIN] {
        check_eq!(
            calls.write_fd(fd, b"nowhere\n"),
            Ok(()),
            "write to descriptor {fd}, which has no result"
        );
        check_eq!(calls.read_fd(fd, &mut [0; 8]), Err(EBADF), "read from descriptor {fd}");
        check_eq!(close(fd), -EBADF, "close of descriptor {fd}");
        check_eq!(lseek(fd, file::SEEK_SET), -1, "seek on descriptor {fd}");
    }
    for path in [c"/etc/passwd", c"/root/nothing", c""] {
        for flags in [file::O_RDONLY, file::O_RDWR, file::O_WRONLY | file::O_TRUNC] {
            let ret = open(path, flags);
            let known = runtime::hypercall::errno::name(-ret);
            check!(ret < 0 && known.is_some(), "open of {path:?} with flags {flags:#o} gave {ret}");
        }
        let ret = unlink(path);
        check!(
            ret < 0 && runtime::hypercall::errno::name(-ret).is_some(),
            "unlink of {path:?} gave {ret}"
        );
    }
    check_eq!(open(c"/etc/passwd", file::O_RDONLY), -ENOENT, "open of a host's file");
    for fd in [STDIN, STDOUT, STDERR] {
        check_eq!(lseek(fd, file::SEEK_CUR), -1, "seek on descriptor {fd}");
        check_eq!(close(fd), 0, "close of descriptor {fd}");
    }
    check_eq!(calls.write_fd(STDOUT, b"after closing\n"), Ok(()), "write after close");
    let ret = calls.read_fd(STDOUT, &mut [0; 8]);
    check!(ret == Err(EBADF) || ret == Err(EINVAL), "read from descriptor 1 gave {ret:?}");
}
