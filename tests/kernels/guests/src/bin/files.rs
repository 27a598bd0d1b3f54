//! File calls of interface version 2: the standard streams work, nothing of the host is there,
//! temporary files work.

#![no_std]
#![no_main]

use runtime::hypercall::errno::{EBADF, EEXIST, EINVAL, ENOENT, ESPIPE};
use runtime::hypercall::v2::{
    Call, CloseParams, FileAttr, FstatParams, GetdentsParams, LseekParams, MkdirParams, OpenParams,
    StatParams, StatusResult, UnlinkParams,
};
use runtime::hypercall::{STDERR, STDIN, STDOUT, file, v2};
use runtime::prelude::*;

runtime::kernel!(v2, main);

/// A result field before the call: no host answers this.
const UNTOUCHED: i32 = 0x5a5a_5a5a;

/// Descriptors that no host hands out here.
const BAD: [i32; 5] = [3, 1000, -1, i32::MAX, i32::MIN];

fn address<T: ?Sized>(value: &T) -> u64 {
    core::ptr::from_ref(value).cast::<u8>().addr() as u64
}

fn open(path: &core::ffi::CStr, flags: i32) -> i32 {
    let mut params = OpenParams { name: address(path), flags, mode: 0o644, ret: UNTOUCHED };
    // SAFETY: the call reads the path.
    unsafe { runtime::v2().call(Call::FileOpen, &mut params) };
    params.ret
}

fn close(fd: i32) -> i32 {
    let mut params = CloseParams { fd, ret: UNTOUCHED };
    // SAFETY: the block has no address.
    unsafe { runtime::v2().call(Call::FileClose, &mut params) };
    params.ret
}

fn lseek(fd: i32, whence: u32) -> i64 {
    let mut params = LseekParams { offset: 0, whence, fd };
    // SAFETY: the block has no address.
    unsafe { runtime::v2().call(Call::FileLseek, &mut params) };
    params.offset
}

fn unlink(path: &core::ffi::CStr) -> i32 {
    let mut params = UnlinkParams { name: address(path), ret: UNTOUCHED };
    // SAFETY: the call reads the path.
    unsafe { runtime::v2().call(Call::FileUnlink, &mut params) };
    params.ret
}

fn stat(path: &core::ffi::CStr, kind: u32) -> (StatusResult, FileAttr) {
    let mut attr = FileAttr::default();
    let at = core::ptr::from_mut(&mut attr).addr() as u64;
    let mut params = StatParams { name: address(path), kind, attr: at, ..StatParams::default() };
    // SAFETY: the call reads the path and writes `attr`.
    unsafe { runtime::v2().call(Call::FileStat, &mut params) };
    (params.ret, attr)
}

fn fstat(fd: i32) -> (StatusResult, FileAttr) {
    let mut attr = FileAttr::default();
    let at = core::ptr::from_mut(&mut attr).addr() as u64;
    let mut params = FstatParams { fd, attr: at, ..FstatParams::default() };
    // SAFETY: the call writes `attr`.
    unsafe { runtime::v2().call(Call::FileFstat, &mut params) };
    (params.ret, attr)
}

fn mkdir(path: &core::ffi::CStr) -> StatusResult {
    let len = path.count_bytes() as u64 + 1;
    let mut params = MkdirParams { path: address(path), len, ret: StatusResult::default() };
    // SAFETY: the call reads the path.
    unsafe { runtime::v2().call(Call::Mkdir, &mut params) };
    params.ret
}

fn getdents(fd: i32) -> v2::GetdentsResult {
    let mut room = [0u64; 64];
    let buf = room.as_mut_ptr().addr() as u64;
    let mut params = GetdentsParams { fd, buf, len: 512, ..GetdentsParams::default() };
    // SAFETY: the call writes to `room`.
    unsafe { runtime::v2().call(Call::Getdents, &mut params) };
    params.ret
}

/// A result that is an error number of the list in `hypercall::errno`.
fn is_error(errno: Option<i32>) -> bool {
    errno.is_some_and(|errno| runtime::hypercall::errno::name(errno).is_some())
}

fn bad_descriptors() {
    let calls = runtime::v2();
    for fd in BAD {
        check_eq!(calls.write_fd(fd, b"nowhere\n"), Err(EBADF), "write to descriptor {fd}");
        check_eq!(calls.read_fd(fd, &mut [0; 8]), Err(EBADF), "read from descriptor {fd}");
        check_eq!(close(fd), -EBADF, "close of descriptor {fd}");
        check_eq!(lseek(fd, 0), -i64::from(EBADF), "seek on descriptor {fd}");
        check_eq!(fstat(fd).0.errno(), Some(EBADF), "fstat of descriptor {fd}");
        check_eq!(getdents(fd).errno(), Some(EBADF), "directory entries of descriptor {fd}");
    }
}

fn paths() {
    for path in [c"/etc/passwd", c"/root/nothing", c"relative", c"", c"../../etc/passwd"] {
        for flags in
            [file::O_RDONLY, file::O_RDWR, file::O_WRONLY | file::O_TRUNC, file::O_DIRECTORY]
        {
            let ret = open(path, flags);
            check!(
                ret < 0 && is_error(Some(-ret)),
                "open of {path:?} with flags {flags:#o} gave {ret}"
            );
        }
        let ret = unlink(path);
        check!(ret < 0 && is_error(Some(-ret)), "unlink of {path:?} gave {ret}");
        for kind in [v2::STAT_FOLLOW, v2::STAT_NO_FOLLOW, 77] {
            let (ret, attr) = stat(path, kind);
            check!(is_error(ret.errno()), "stat of {path:?} gave {ret:?}");
            check_eq!(attr, FileAttr::default(), "metadata after a failed stat");
        }
    }
    check_eq!(open(c"/etc/passwd", file::O_RDONLY), -ENOENT, "open of a host's file");
    let ret = open(c"/x", file::O_CREAT | file::O_DIRECTORY);
    check_eq!(ret, -EINVAL, "open with O_CREAT and O_DIRECTORY");
}

/// Paths outside of mounts go to temporary files that only this guest sees.
fn temporary() {
    check_eq!(stat(c"/", v2::STAT_FOLLOW).0, StatusResult::success(), "the root");
    check_eq!(mkdir(c"/etc/nerite"), StatusResult::success(), "mkdir");
    check_eq!(mkdir(c"/etc/nerite").errno(), Some(EEXIST), "mkdir once more");
    let fd = open(c"/etc/nerite/a", file::O_CREAT | file::O_RDWR);
    check_eq!(fd, 3, "the first descriptor");
    check_eq!(runtime::v2().write_fd(fd, b"hello"), Ok(5), "write");
    check_eq!(lseek(fd, 0), 0, "seek");
    let mut bytes = [0; 8];
    check_eq!(runtime::v2().read_fd(fd, &mut bytes), Ok(5), "read");
    check_eq!(&bytes, b"hello\0\0\0", "what was written");
    check_eq!(fstat(fd).1.st_size, 5, "size");
    check_eq!(unlink(c"/etc/nerite/a"), 0, "unlink");
    check_eq!(open(c"/etc/nerite/a", file::O_RDONLY), -ENOENT, "open after unlink");
    check_eq!(close(fd), 0, "close");
    check_eq!(close(fd), -EBADF, "close once more");
}

fn standard_streams() {
    for fd in [STDIN, STDOUT, STDERR] {
        let position = lseek(fd, file::SEEK_CUR as u32);
        check_eq!(position, -i64::from(ESPIPE), "seek on descriptor {fd}");
        let ret = getdents(fd);
        check!(is_error(ret.errno()), "directory entries of descriptor {fd} gave {ret:?}");
        check_eq!(close(fd), 0, "close of descriptor {fd}");
    }
    // Closing a standard stream changes nothing.
    check_eq!(runtime::v2().write_fd(STDOUT, b"after closing\n"), Ok(14), "write after close");
    let ret = runtime::v2().write_fd(STDIN, b"to the input\n");
    check!(ret == Err(EBADF) || ret == Err(EINVAL), "write to descriptor 0 gave {ret:?}");
    let ret = runtime::v2().read_fd(STDOUT, &mut [0; 8]);
    check!(ret == Err(EBADF) || ret == Err(EINVAL), "read from descriptor 1 gave {ret:?}");
}

fn main() {
    bad_descriptors();
    paths();
    temporary();
    standard_streams();
}
