//! A hundred files open at once, written and read by all processors at the same time: no file gets
//! another one's bytes.

#![no_std]
#![no_main]

extern crate alloc;

use core::sync::atomic::{AtomicU32, Ordering};

use runtime::hypercall::errno::{EBADF, ENOENT};
use runtime::hypercall::file;
use runtime::hypercall::v2::{Call, CloseParams, OpenParams, UnlinkParams};
use runtime::prelude::*;
use runtime::smp;

runtime::kernel!(v2, main);

const FILES: usize = 100;
const CHUNK: usize = 5000;
const CHUNKS: usize = 5;

/// Processors that wrote all their files.
static WRITTEN: AtomicU32 = AtomicU32::new(0);
static CHECKED: AtomicU32 = AtomicU32::new(0);

/// The zero-terminated path of a file through the writable mount, or through the read-only one.
fn path(mount: &str, file: usize) -> alloc::string::String {
    alloc::format!("/{mount}/nerite-many-files-{file}\0")
}

fn open(path: &str, flags: i32) -> i32 {
    let mut params = OpenParams { name: path.as_ptr().addr() as u64, flags, mode: 0o600, ret: 0 };
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

/// Bytes that tell which file, and where in it.
fn fill(bytes: &mut [u8], file: usize, chunk: usize) {
    for (at, byte) in bytes.iter_mut().enumerate() {
        let at = chunk * CHUNK + at;
        *byte = (file * 37 + at * 11 + at / 256) as u8;
    }
}

fn wait_for_all(count: &AtomicU32) {
    count.fetch_add(1, Ordering::AcqRel);
    while count.load(Ordering::Acquire) < boot::cpus() {
        core::hint::spin_loop();
    }
}

fn work(index: usize) {
    let calls = runtime::v2();
    let cpus = boot::cpus() as usize;
    let mut bytes = alloc::vec![0; CHUNK];
    let mine: Vec<(usize, i32)> = (index..FILES)
        .step_by(cpus)
        .map(|file| (file, open(&path("data", file), file::O_RDWR | file::O_CREAT | file::O_TRUNC)))
        .collect();
    for chunk in 0..CHUNKS {
        for &(file, fd) in &mine {
            check!(fd >= 3, "open of file {file} gave {fd}");
            fill(&mut bytes, file, chunk);
            check_eq!(calls.write_fd(fd, &bytes), Ok(CHUNK), "write to file {file}");
        }
    }
    wait_for_all(&WRITTEN);

    // Each thread reads everything, in an order of its own.
    let mut expected = alloc::vec![0; CHUNK];
    for step in 0..FILES {
        let file = (step * 7 + index * 29) % FILES;
        let fd = open(&path("ro", file), file::O_RDONLY);
        for chunk in 0..CHUNKS {
            fill(&mut expected, file, chunk);
            check_eq!(calls.read_fd(fd, &mut bytes), Ok(CHUNK), "read from file {file}");
            check!(
                bytes == expected,
                "processor {index}: file {file} has other bytes in chunk {chunk}"
            );
        }
        check_eq!(calls.read_fd(fd, &mut bytes), Ok(0), "end of file {file}");
        check_eq!(close(fd), 0, "close of file {file}");
    }
    wait_for_all(&CHECKED);
    for &(file, fd) in &mine {
        let name = path("data", file);
        check_eq!(close(fd), 0, "close of the written file {file}");
        let mut unlink = UnlinkParams { name: name.as_ptr().addr() as u64, ret: 77 };
        // SAFETY: the call reads the path, which ends with a zero.
        unsafe { calls.call(Call::FileUnlink, &mut unlink) };
        check_eq!({ unlink.ret }, 0, "unlink of file {file}");
    }
}

fn main() {
    smp::on_others(work);
    work(0);
    smp::wait_until_done();
    check_eq!(open(&path("data", 0), file::O_RDONLY), -ENOENT, "a removed file");
    check_eq!(close(3), -EBADF, "all descriptors are closed");
    println!("{} processors, {FILES} files", boot::cpus());
}
