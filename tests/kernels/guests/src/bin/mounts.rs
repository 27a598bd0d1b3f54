//! Mounted directories through interface version 2: every file call on `/data` (writable) and `/ro`
//! (the same directory, read-only), a file of the image, and no way out.

#![no_std]
#![no_main]

use runtime::hypercall::errno::{EBUSY, EEXIST, EFAULT, ENOENT, EROFS};
use runtime::hypercall::v2::{
    Call, CloseParams, FileAttr, GetdentsParams, GetdentsResult, LseekParams, MkdirParams,
    OpenParams, ReadParams, StatParams, UnlinkParams, WriteParams,
};
use runtime::hypercall::{file, v2};
use runtime::prelude::*;

runtime::kernel!(v2, main);

const UNTOUCHED: i32 = 0x5a5a_5a5a;
const NAME: &core::ffi::CStr = c"/data/nerite-mounts-test";
const SAME: &core::ffi::CStr = c"/ro/../ro/./nerite-mounts-test";
const MEGABYTE: usize = 1 << 20;

fn open(path: &core::ffi::CStr, flags: i32) -> i32 {
    let mut params =
        OpenParams { name: path.as_ptr().addr() as u64, flags, mode: 0o600, ret: UNTOUCHED };
    // SAFETY: the call reads the path.
    unsafe { runtime::v2().call(Call::FileOpen, &mut params) };
    params.ret
}

fn unlink(path: &core::ffi::CStr) -> i32 {
    let mut params = UnlinkParams { name: path.as_ptr().addr() as u64, ret: UNTOUCHED };
    // SAFETY: the call reads the path.
    unsafe { runtime::v2().call(Call::FileUnlink, &mut params) };
    params.ret
}

fn close(fd: i32) -> i32 {
    let mut params = CloseParams { fd, ret: UNTOUCHED };
    // SAFETY: the block has no address.
    unsafe { runtime::v2().call(Call::FileClose, &mut params) };
    params.ret
}

fn seek(fd: i32, offset: i64, whence: i32) -> i64 {
    let mut params = LseekParams { offset, whence: whence.cast_unsigned(), fd };
    // SAFETY: the block has no address.
    unsafe { runtime::v2().call(Call::FileLseek, &mut params) };
    params.offset
}

fn mkdir(path: &core::ffi::CStr) -> Option<i32> {
    let name = path.as_ptr().addr() as u64;
    let mut params =
        MkdirParams { path: name, len: path.count_bytes() as u64 + 1, ..MkdirParams::default() };
    // SAFETY: the call reads the path.
    unsafe { runtime::v2().call(Call::Mkdir, &mut params) };
    params.ret.errno()
}

fn stat(path: &core::ffi::CStr) -> Result<FileAttr, Option<i32>> {
    let mut attr = FileAttr::default();
    let at = core::ptr::from_mut(&mut attr).addr() as u64;
    let mut params =
        StatParams { name: path.as_ptr().addr() as u64, attr: at, ..StatParams::default() };
    // SAFETY: the call reads the path and writes `attr`.
    unsafe { runtime::v2().call(Call::FileStat, &mut params) };
    if params.ret == v2::StatusResult::success() { Ok(attr) } else { Err(params.ret.errno()) }
}

/// Returns `true` if a directory lists a name, read with a small buffer.
fn lists(path: &core::ffi::CStr, name: &[u8]) -> bool {
    let fd = open(path, file::O_RDONLY | file::O_DIRECTORY);
    check!(fd >= 3, "open of {path:?} gave {fd}");
    let mut found = false;
    loop {
        let mut room = [0_u64; 64];
        let buf = room.as_mut_ptr().addr() as u64;
        let mut params = GetdentsParams { fd, buf, len: 512, ..GetdentsParams::default() };
        // SAFETY: the call writes to `room`.
        unsafe { runtime::v2().call(Call::Getdents, &mut params) };
        if params.ret == GetdentsResult::end() {
            break;
        }
        check_eq!(params.ret.tag, GetdentsResult::SUCCESS, "directory entries");
        check!(
            params.ret.value <= 512 && params.ret.value.is_multiple_of(8),
            "size of the entries"
        );
        let mut rest = room.map(u64::to_le_bytes);
        let bytes = rest.as_flattened_mut();
        let mut at = 0;
        while (at as u64) < params.ret.value {
            let size = usize::from(u16::from_le_bytes([bytes[at + 16], bytes[at + 17]]));
            check!(size >= 24 && at + size <= 512, "an entry of {size} bytes at {at}");
            found |= bytes[at + 19..at + size].split(|byte| *byte == 0).next() == Some(name);
            at += size;
        }
    }
    check_eq!(close(fd), 0, "close of the directory");
    found
}

/// A megabyte there and back, then buffers that run over the end of RAM.
fn data(fd: i32) {
    let calls = runtime::v2();
    let mut bytes: Vec<u8> = (0..MEGABYTE).map(|at| (at * 7 + at / 255) as u8).collect();
    let copy = bytes.clone();
    check_eq!(calls.write_fd(fd, &bytes), Ok(MEGABYTE), "write of a megabyte");
    check_eq!(
        stat(SAME).map(|attr| attr.st_size),
        Ok(MEGABYTE as i64),
        "size through the other mount"
    );
    check_eq!(seek(fd, 0, file::SEEK_SET), 0, "rewind");
    bytes.fill(0);
    check_eq!(calls.read_fd(fd, &mut bytes), Ok(MEGABYTE), "read of a megabyte");
    check!(bytes == copy, "the bytes that were read are not those that were written");
    check_eq!(calls.read_fd(fd, &mut bytes), Ok(0), "read at the end");
    check_eq!(seek(fd, -5, file::SEEK_END), MEGABYTE as i64 - 5, "seek from the end");
    check_eq!(calls.read_fd(fd, &mut bytes), Ok(5), "read of the rest");

    let start = bytes.as_ptr().addr() as u64;
    for (buf, len) in [(start, u64::MAX), (u64::MAX - 8, 16), (0xd000_0000, 4096), (start, 1 << 40)]
    {
        let mut write = WriteParams { len, buf, fd, ret: 77, reserved: 0 };
        // SAFETY: the call reads what is in RAM wholly, and this is not.
        unsafe { runtime::v2().call(Call::FileWrite, &mut write) };
        check_eq!(write.ret, -i64::from(EFAULT), "write from {buf:#x}, {len:#x} bytes");
        check_eq!(seek(fd, 0, file::SEEK_SET), 0, "rewind");
        let mut read = ReadParams { len, buf, fd, ret: 77, reserved: 0 };
        // SAFETY: the call writes to what is in RAM wholly, and this is not.
        unsafe { runtime::v2().call(Call::FileRead, &mut read) };
        check_eq!(read.ret, -i64::from(EFAULT), "read to {buf:#x}, {len:#x} bytes");
    }
    check_eq!(stat(NAME).map(|attr| attr.st_size), Ok(MEGABYTE as i64), "size afterwards");
}

fn main() {
    check_eq!(open(NAME, file::O_RDONLY), -ENOENT, "a file that is not there yet");
    let fd = open(NAME, file::O_RDWR | file::O_CREAT | file::O_EXCL);
    check_eq!(fd, 3, "the new file");
    check_eq!(
        open(NAME, file::O_RDWR | file::O_CREAT | file::O_EXCL),
        -EEXIST,
        "the new file once more"
    );
    check!(lists(c"/data", b"nerite-mounts-test"), "the new file is not listed");
    check!(lists(c"/", b"data") && lists(c"/", b"ro"), "the mounts are not listed");
    data(fd);
    check_eq!(close(fd), 0, "close");

    for flags in [file::O_RDWR, file::O_WRONLY, file::O_TRUNC, file::O_RDWR | file::O_CREAT] {
        check_eq!(open(SAME, flags), -EROFS, "open with flags {flags:#o} where it is read-only");
    }
    check_eq!(unlink(SAME), -EROFS, "unlink where it is read-only");
    check_eq!(mkdir(c"/ro/nerite-new-directory"), Some(EROFS), "mkdir where it is read-only");
    check_eq!(mkdir(c"/data"), Some(EEXIST), "mkdir of the mount point");
    check_eq!(unlink(c"/data"), -EBUSY, "unlink of the mount point");
    for path in [c"/data/../etc/passwd", c"/data/../../etc/passwd", c"/etc/passwd"] {
        check_eq!(open(path, file::O_RDONLY), -ENOENT, "open of {path:?}");
    }
    let reader = open(SAME, file::O_RDONLY);
    check_eq!(reader, 3, "open for reading where it is read-only");
    check_eq!(unlink(NAME), 0, "unlink");
    check_eq!(stat(NAME).err(), Some(Some(ENOENT)), "stat after unlink");
    check_eq!(
        runtime::v2().read_fd(reader, &mut [0; 8]),
        Ok(8),
        "read of what is removed and open"
    );

    let image = open(c"/hermit.toml", file::O_RDONLY);
    check!(image >= 3, "open of the image's own file gave {image}");
    let mut start = [0; 7];
    check_eq!(runtime::v2().read_fd(image, &mut start), Ok(7), "read of the image's own file");
    check_eq!(&start, b"version", "the image's own file");
    check_eq!(
        open(c"/hermit.toml", file::O_RDWR),
        -EROFS,
        "open of the image's own file for writing"
    );
}
