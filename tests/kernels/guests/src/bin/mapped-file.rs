//! A single file that is mapped by its name, through interface version 2: created, read, removed
//! while it is open and afterwards, as the argument asks.

#![no_std]
#![no_main]

use runtime::boot;
use runtime::hypercall::errno::{EBADF, ENOENT};
use runtime::hypercall::file;
use runtime::hypercall::v2::{
    Call, CloseParams, LseekParams, OpenParams, ReadParams, UnlinkParams, WriteParams,
};
use runtime::prelude::*;

runtime::kernel!(v2, main);

const UNTOUCHED: i32 = 0x5a5a_5a5a;
const PATH: &core::ffi::CStr = c"/uhyve_mount/file.txt";
const TEXT: &[u8] = b"Hello, world!";
const CREATE: i32 = file::O_RDWR | file::O_CREAT | file::O_TRUNC;

fn open(flags: i32) -> i32 {
    let mut params =
        OpenParams { name: PATH.as_ptr().addr() as u64, flags, mode: 0o644, ret: UNTOUCHED };
    // SAFETY: the call reads the path.
    unsafe { runtime::v2().call(Call::FileOpen, &mut params) };
    params.ret
}

fn close(fd: i32) {
    let mut params = CloseParams { fd, ret: UNTOUCHED };
    // SAFETY: the block has no address.
    unsafe { runtime::v2().call(Call::FileClose, &mut params) };
    check_eq!(params.ret, 0, "closing");
}

fn unlink() -> i32 {
    let mut params = UnlinkParams { name: PATH.as_ptr().addr() as u64, ret: UNTOUCHED };
    // SAFETY: the call reads the path.
    unsafe { runtime::v2().call(Call::FileUnlink, &mut params) };
    params.ret
}

fn seek(fd: i32, offset: i64) {
    let mut params = LseekParams { offset, whence: file::SEEK_SET.cast_unsigned(), fd };
    // SAFETY: the block has no address.
    unsafe { runtime::v2().call(Call::FileLseek, &mut params) };
    check_eq!(params.offset, offset, "the position");
}

fn write(fd: i32, bytes: &[u8]) -> i64 {
    let buf = bytes.as_ptr().addr() as u64;
    let mut params = WriteParams { buf, len: bytes.len() as u64, fd, ret: -1, reserved: 0 };
    // SAFETY: the call reads the bytes.
    unsafe { runtime::v2().call(Call::FileWrite, &mut params) };
    params.ret
}

fn read(fd: i32, buffer: &mut [u8]) -> i64 {
    let buf = buffer.as_mut_ptr().addr() as u64;
    let mut params = ReadParams { buf, len: buffer.len() as u64, fd, ret: -1, reserved: 0 };
    // SAFETY: the call writes into the buffer.
    unsafe { runtime::v2().call(Call::FileRead, &mut params) };
    params.ret
}

/// Creates the file and writes the text. Returns the open file.
fn create() -> i32 {
    let fd = open(CREATE);
    check!(fd >= 3, "creating the file gave {fd}");
    check_eq!(write(fd, TEXT), TEXT.len() as i64, "bytes written");
    fd
}

fn check_text(fd: i32) {
    let mut buffer = [0; 32];
    check_eq!(read(fd, &mut buffer), TEXT.len() as i64, "bytes read");
    check_eq!(&buffer[..TEXT.len()], TEXT, "the text");
}

fn main() {
    let args = boot::args();
    match args.first().map_or("", String::as_str) {
        "create" => {
            check_eq!(open(file::O_RDONLY), -ENOENT, "opening what is not there");
            close(create());
            let fd = open(file::O_RDONLY);
            check_text(fd);
            close(fd);
        }
        "remove" => check_eq!(unlink(), 0, "removing what the host has made"),
        "open-remove-close" => {
            let fd = create();
            check_eq!(unlink(), 0, "removing an open file");
            seek(fd, 0);
            check_text(fd);
            close(fd);
        }
        "remove-again" => {
            let fd = create();
            check_eq!(unlink(), 0, "removing an open file");
            close(fd);
            check_eq!(unlink(), -ENOENT, "removing it again");
        }
        "remove-twice-before-closing" => {
            let fd = create();
            check_eq!(unlink(), 0, "removing an open file");
            check_eq!(unlink(), -ENOENT, "removing it again");
            close(fd);
        }
        "seek" => {
            let fd = open(CREATE);
            let bytes: [u8; 19] = core::array::from_fn(|at| at as u8);
            check_eq!(write(fd, &bytes), 19, "bytes written");
            let mut buffer = [0; 10];
            check_eq!(read(fd, &mut buffer), 0, "bytes at the end");
            for start in [0_u8, 5] {
                seek(fd, start.into());
                check_eq!(read(fd, &mut buffer), 10, "bytes read");
                check_eq!(buffer, core::array::from_fn(|at| start + at as u8), "bytes");
            }
            close(fd);
        }
        "read-only" => {
            close(create());
            let fd = open(file::O_RDONLY);
            check_eq!(write(fd, b"No more."), -i64::from(EBADF), "writing what is only read");
            check_text(fd);
            close(fd);
        }
        other => panic!("unknown exercise {other:?}"),
    }
}
