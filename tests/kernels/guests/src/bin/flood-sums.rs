//! Floods the console and a file in the mounted directory `/data` at the same time, until there is
//! a file `/data/stop`, and prints checksums of both. The host pauses and resumes the processors
//! meanwhile. The first writes lines and the second the file; a lone processor does both in turn.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::hypercall::file::{O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, SEEK_SET};
use runtime::hypercall::v2::{Call, CloseParams, LseekParams, OpenParams};
use runtime::prelude::*;
use runtime::smp;

runtime::kernel!(v2, main);

/// Bytes of a chunk, and how many the file holds: then its first one is written anew.
const CHUNK: usize = 4096;
const CHUNKS: u64 = 16;
/// Bytes of a line.
const LINE: usize = 64;
/// Rounds between two checks of the stop flag.
const LOOK: u64 = 32;

static ROUNDS: AtomicU64 = AtomicU64::new(0);
static FILE_SUM: AtomicU64 = AtomicU64::new(0);

/// FNV-1a, 64 bits.
fn sum(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

const FIRST_SUM: u64 = 0xcbf2_9ce4_8422_2325;

fn open(path: &core::ffi::CStr, flags: i32) -> i32 {
    let mut open = OpenParams { name: path.as_ptr().addr() as u64, flags, mode: 0o600, ret: 0 };
    // SAFETY: the call reads the path.
    unsafe { runtime::v2().call(Call::FileOpen, &mut open) };
    open.ret
}

fn should_stop() -> bool {
    let fd = open(c"/data/stop", O_RDONLY);
    if fd < 0 {
        return false;
    }
    let mut close = CloseParams { fd, ret: 0 };
    // SAFETY: the block has no address.
    unsafe { runtime::v2().call(Call::FileClose, &mut close) };
    true
}

fn seek(fd: i32, offset: i64) {
    let mut seek = LseekParams { offset, whence: SEEK_SET.cast_unsigned(), fd };
    // SAFETY: the block has no address.
    unsafe { runtime::v2().call(Call::FileLseek, &mut seek) };
    check_eq!({ seek.offset }, offset, "seek");
}

/// Writes a file and reads it back, chunk by chunk.
struct Files {
    fd: i32,
    round: u64,
    written: u64,
    read: u64,
}

impl Files {
    fn new() -> Self {
        let fd = open(c"/data/flood", O_RDWR | O_CREAT | O_TRUNC);
        check!(fd >= 3, "open gave {fd}");
        Self { fd, round: 0, written: FIRST_SUM, read: FIRST_SUM }
    }

    fn step(&mut self, bytes: &mut [u8; CHUNK]) {
        let at = (self.round % CHUNKS * CHUNK as u64) as i64;
        for (offset, byte) in bytes.iter_mut().enumerate() {
            *byte = (self.round.wrapping_mul(31) + offset as u64 * 7 + offset as u64 / 251) as u8;
        }
        self.written = sum(self.written, bytes);
        seek(self.fd, at);
        check_eq!(runtime::v2().write_fd(self.fd, bytes), Ok(CHUNK), "write");
        bytes.fill(0);
        seek(self.fd, at);
        check_eq!(runtime::v2().read_fd(self.fd, bytes), Ok(CHUNK), "read");
        self.read = sum(self.read, bytes);
        self.round += 1;
    }

    fn finish(&self) {
        check_eq!(self.read, self.written, "what was read back");
        ROUNDS.store(self.round, Ordering::Relaxed);
        FILE_SUM.store(self.read, Ordering::Release);
    }
}

/// Writes a line that says its number.
fn line(number: u64, total: u64) -> u64 {
    let mut bytes = *b"line 00000000 abcdefghijklmnopqrstuvwxyz 0123456789 .,-+*/ =!?;\n";
    const { assert!(LINE == 64) };
    let mut left = number;
    for digit in bytes[5..13].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    runtime::v2().write(&bytes);
    sum(total, &bytes)
}

fn write_file(index: usize) {
    if index != 1 {
        return;
    }
    let (mut files, mut bytes) = (Files::new(), [0; CHUNK]);
    while !files.round.is_multiple_of(LOOK) || !should_stop() {
        files.step(&mut bytes);
    }
    files.finish();
}

fn main() {
    smp::wait_until_started();
    let mut alone = if boot::cpus() == 1 { Some(Files::new()) } else { None };
    let (mut bytes, mut lines, mut total) = ([0; CHUNK], 0_u64, FIRST_SUM);
    smp::on_others(write_file);
    while !lines.is_multiple_of(LOOK) || !should_stop() {
        if let Some(files) = &mut alone {
            files.step(&mut bytes);
        }
        total = line(lines, total);
        lines += 1;
    }
    if let Some(files) = &alone {
        files.finish();
    }
    smp::wait_until_done();
    println!("console: {lines} lines, sum {total:016x}");
    let (rounds, total) = (ROUNDS.load(Ordering::Relaxed), FILE_SUM.load(Ordering::Acquire));
    println!("file: {rounds} chunks, sum {total:016x}");
}
