//! 64 readers and writers on four processors, taking turns, on a hundred files at the same time. A
//! reader sees what a writer has written so far and nothing else. In the end every file's checksum
//! is printed as `sha1sum` prints it, for the host to compare.
//!
//! With the argument `forever` the writers never end; with `verify` the files are only read: each
//! must be the beginning of what was to be written.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use core::sync::atomic::{AtomicU32, Ordering};

use runtime::hypercall::errno::ENOENT;
use runtime::hypercall::file::{O_CREAT, O_RDONLY, O_WRONLY, SEEK_SET};
use runtime::hypercall::v2::{Call, CloseParams, LseekParams, OpenParams};
use runtime::prelude::*;
use runtime::smp;

runtime::kernel!(v2, main);

const FILES: usize = 100;
const WRITERS: usize = 32;
const READERS: usize = 32;
const CHUNK: usize = 3000;
/// Chunks of a file; files differ in length.
fn chunks(file: usize) -> usize {
    3 + file % 5
}

static DONE: AtomicU32 = AtomicU32::new(0);

/// Opens a file. The heap gives nothing back, so its path is made on the stack.
fn open(file: usize, flags: i32) -> i32 {
    let mut path = *b"/data/f\0\0\0";
    if file >= 10 {
        path[7] = b'0' + (file / 10) as u8;
        path[8] = b'0' + (file % 10) as u8;
    } else {
        path[7] = b'0' + file as u8;
    }
    let mut params = OpenParams { name: path.as_ptr().addr() as u64, flags, mode: 0o600, ret: 77 };
    // SAFETY: the call reads the path, which ends with a zero.
    unsafe { runtime::v2().call(Call::FileOpen, &mut params) };
    params.ret
}

fn close(fd: i32) {
    let mut params = CloseParams { fd, ret: 77 };
    // SAFETY: the block has no address.
    unsafe { runtime::v2().call(Call::FileClose, &mut params) };
    check_eq!({ params.ret }, 0, "close of {fd}");
}

fn rewind(fd: i32) {
    let mut params = LseekParams { offset: 0, whence: SEEK_SET.cast_unsigned(), fd };
    // SAFETY: the block has no address.
    unsafe { runtime::v2().call(Call::FileLseek, &mut params) };
    check_eq!({ params.offset }, 0, "seek in {fd}");
}

/// The byte at `at` in a file.
fn byte(file: usize, at: usize) -> u8 {
    (file * 31 + at * 7 + at / 251) as u8
}

/// One of the 64.
enum Worker {
    Writer { file: usize, fd: i32, chunk: usize },
    Reader { file: usize, fd: i32, at: usize, left: usize },
    Done,
}

/// Does one step.
fn step(worker: &mut Worker, bytes: &mut [u8], forever: bool) {
    match worker {
        Worker::Writer { file, fd, chunk } => {
            if *fd < 0 {
                *fd = open(*file, O_WRONLY | O_CREAT);
                check!(*fd >= 3, "open of file {file} for writing gave {fd}");
            }
            for (offset, byte_) in bytes.iter_mut().enumerate() {
                *byte_ = byte(*file, *chunk * CHUNK + offset);
            }
            check_eq!(runtime::v2().write_fd(*fd, bytes), Ok(CHUNK), "write to file {file}");
            *chunk += 1;
            if *chunk < chunks(*file) {
                return;
            }
            if forever {
                rewind(*fd);
                *chunk = 0;
                return;
            }
            close(*fd);
            let next = *file + WRITERS;
            *worker = if next < FILES {
                Worker::Writer { file: next, fd: -1, chunk: 0 }
            } else {
                Worker::Done
            };
        }
        Worker::Reader { file, fd, at, left } => {
            if *fd < 0 {
                *fd = open(*file, O_RDONLY);
                // Its writer has not come to it yet.
                if *fd == -ENOENT {
                    return;
                }
                check!(*fd >= 3, "open of file {file} for reading gave {fd}");
            }
            let count = runtime::v2().read_fd(*fd, bytes).unwrap_or(0);
            let right =
                bytes.iter().take(count).enumerate().all(|(i, seen)| *seen == byte(*file, *at + i));
            check!(right, "file {file} has other bytes at {at}");
            *at += count;
            if *at == chunks(*file) * CHUNK {
                close(*fd);
                *left -= 1;
                *worker = match *left {
                    0 => Worker::Done,
                    left => Worker::Reader { file: (*file + 37) % FILES, fd: -1, at: 0, left },
                };
            }
        }
        Worker::Done => {}
    }
}

fn work(index: usize) {
    let cpus = boot::cpus() as usize;
    let forever = boot::args().first().is_some_and(|arg| arg == "forever");
    let writers = (0..WRITERS).map(|file| Worker::Writer { file, fd: -1, chunk: 0 });
    // Each reads eight files through, in an order of its own.
    let readers =
        (0..READERS).map(|at| Worker::Reader { file: at * 3 % FILES, fd: -1, at: 0, left: 8 });
    let mine = writers.chain(readers).enumerate().filter(|(number, _)| number % cpus == index);
    let mut workers: Vec<Worker> = mine.map(|(_, worker)| worker).collect();
    let mut bytes = vec![0; CHUNK];
    while workers.iter().any(|worker| !matches!(worker, Worker::Done)) {
        for worker in &mut workers {
            step(worker, &mut bytes, forever);
        }
    }
    DONE.fetch_add(1, Ordering::AcqRel);
}

/// SHA-1 (FIPS 180-4), one block of 64 bytes at a time.
struct Sha1 {
    state: [u32; 5],
    block: [u8; 64],
    filled: usize,
    length: u64,
}

impl Sha1 {
    fn new() -> Self {
        let state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
        Self { state, block: [0; 64], filled: 0, length: 0 }
    }

    fn add(&mut self, byte: u8) {
        self.block[self.filled] = byte;
        self.filled += 1;
        self.length += 8;
        if self.filled == 64 {
            self.mix();
            self.filled = 0;
        }
    }

    fn mix(&mut self) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(self.block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for at in 16..80 {
            words[at] =
                (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = self.state;
        for (at, word) in words.into_iter().enumerate() {
            let (f, k) = match at / 20 {
                0 => (b & c | !b & d, 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next =
                a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in self.state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }

    fn finish(mut self) -> String {
        let length = self.length;
        self.add(0x80);
        while self.filled != 56 {
            self.add(0);
        }
        length.to_be_bytes().into_iter().for_each(|byte| self.add(byte));
        self.state.iter().map(|word| alloc::format!("{word:08x}")).collect()
    }
}

/// Reads what there is of a file, checks it, and gives its checksum and length.
fn look(file: usize, bytes: &mut [u8]) -> Option<(String, usize)> {
    let fd = open(file, O_RDONLY);
    if fd < 0 {
        check_eq!(fd, -ENOENT, "open of file {file}");
        return None;
    }
    let (mut sum, mut length) = (Sha1::new(), 0);
    loop {
        let count = runtime::v2().read_fd(fd, bytes).unwrap_or(0);
        if count == 0 {
            break;
        }
        for seen in bytes.iter().take(count) {
            check!(*seen == byte(file, length), "file {file} has another byte at {length}");
            sum.add(*seen);
            length += 1;
        }
    }
    close(fd);
    Some((sum.finish(), length))
}

fn main() {
    let args = boot::args();
    let verify = args.first().is_some_and(|arg| arg == "verify");
    if !verify {
        println!("{} workers on {} processors", WRITERS + READERS, boot::cpus());
        smp::on_others(work);
        work(0);
        while DONE.load(Ordering::Acquire) < boot::cpus() {
            core::hint::spin_loop();
        }
    }
    let mut bytes = vec![0; CHUNK];
    for file in 0..FILES {
        match look(file, &mut bytes) {
            Some((sum, length)) => {
                check!(verify || length == chunks(file) * CHUNK, "file {file} has {length} bytes");
                println!("{sum}  f{file}");
            }
            None => check!(verify, "file {file} is not there"),
        }
    }
}
