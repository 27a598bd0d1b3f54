//! The same calls from all processors at once, on the same descriptors, with blocks that another
//! processor changes while the VMM reads them. What comes of a call is open; that the VMM goes on,
//! and touches nothing else, is not.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use runtime::hypercall::file::{O_CREAT, O_RDWR};
use runtime::hypercall::guest;
use runtime::hypercall::v2::{Call, CloseParams, OpenParams};
use runtime::prelude::*;
use runtime::random::Random;
use runtime::smp;

runtime::kernel!(v2, main);

const ROUNDS: u32 = 400;
const WORDS: usize = 8;
/// Guard bytes around the buffers, which must not change.
const GUARD: u64 = 0x6e65_7269_7465_6772;

#[repr(C, align(4096))]
struct Shared {
    before: [u64; 512],
    /// Buffers that reads and listings may write.
    buffer: [AtomicU64; 512],
    after: [u64; 512],
    /// The block that one processor sends and another one changes.
    block: [AtomicU64; WORDS],
}

static SHARED: Shared = Shared {
    before: [GUARD; 512],
    buffer: [const { AtomicU64::new(0) }; 512],
    after: [GUARD; 512],
    block: [const { AtomicU64::new(0) }; WORDS],
};
static CHANGING: AtomicBool = AtomicBool::new(false);
static FINISHED: AtomicU32 = AtomicU32::new(0);
/// Processors that have seen [`CHANGING`].
static SEEN: AtomicU32 = AtomicU32::new(0);

const CALLS: [Call; 10] = [
    Call::FileWrite,
    Call::FileRead,
    Call::FileOpen,
    Call::FileClose,
    Call::FileLseek,
    Call::Getdents,
    Call::FileStat,
    Call::FileFstat,
    Call::Mkdir,
    Call::FileUnlink,
];

/// A number that some call may take for an address of the buffer, a length, a descriptor or
/// nonsense. An address that is in RAM is one in the buffer, because the VMM may write there.
fn word(random: &mut Random) -> u64 {
    let buffer = SHARED.buffer.as_ptr().addr() as u64;
    match random.next() % 8 {
        0..3 => buffer + random.next() % 2048,
        3 => random.next() % 8,
        4 => u64::MAX - random.next() % 8,
        5 => 0xd000_0000 + random.next() % 4096,
        6 => random.next() % 2048,
        _ => 1 << (48 + random.next() % 16),
    }
}

fn open(path: &str) -> i32 {
    let name = path.as_ptr().addr() as u64;
    let mut params = OpenParams { name, flags: O_CREAT | O_RDWR, mode: 0o600, ret: 77 };
    // SAFETY: the call reads the path, which ends with a zero.
    unsafe { runtime::v2().call(Call::FileOpen, &mut params) };
    params.ret
}

/// All processors with the same call at a time, each with its own block and the same descriptors.
fn together(index: usize) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (index as u64) << 32);
    let calls = runtime::v2();
    for round in 0..ROUNDS {
        let fd = open(["/data/nerite-race\0", "/race\0"][round as usize % 2]);
        let mut bytes = [0_u8; 64];
        let _ = calls.write_fd(3 + (random.next() % 4) as i32, &bytes);
        let _ = calls.read_fd(3 + (random.next() % 4) as i32, &mut bytes);
        let mut close = CloseParams { fd: 3 + (random.next() % 4) as i32, ret: 0 };
        // SAFETY: the block has no address.
        unsafe { calls.call(Call::FileClose, &mut close) };
        close.fd = fd;
        // SAFETY: as above.
        unsafe { calls.call(Call::FileClose, &mut close) };
    }
    FINISHED.fetch_add(1, Ordering::AcqRel);
    // The odd ones change the block that the even ones send.
    while !CHANGING.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    SEEN.fetch_add(1, Ordering::AcqRel);
    if index % 2 == 1 {
        while CHANGING.load(Ordering::Acquire) {
            let word = word(&mut random);
            SHARED.block[random.next() as usize % WORDS].store(word, Ordering::Relaxed);
        }
    } else {
        send(&mut random);
    }
}

fn send(random: &mut Random) {
    for _ in 0..ROUNDS {
        for call in CALLS {
            SHARED.block[random.next() as usize % WORDS].store(word(random), Ordering::Relaxed);
            // SAFETY: whatever the words are at the moment, an address in RAM that the VMM may
            // write to lies in the buffer or the block, which are atomic.
            unsafe { guest::out(call.port(), 0, SHARED.block.as_ptr().addr() as u64) };
        }
    }
}

fn main() {
    smp::on_others(together);
    let mut random = Random(0x1234_5678_9abc_def1);
    while FINISHED.load(Ordering::Acquire) + 1 < boot::cpus() {
        core::hint::spin_loop();
    }
    CHANGING.store(true, Ordering::Release);
    // On a busy host it could be over before a processor runs again.
    while SEEN.load(Ordering::Acquire) + 1 < boot::cpus() {
        core::hint::spin_loop();
    }
    send(&mut random);
    CHANGING.store(false, Ordering::Release);
    smp::wait_until_done();
    let guard = |words: &[u64; 512]| words.iter().all(|word| core::hint::black_box(*word) == GUARD);
    check!(
        guard(&SHARED.before) && guard(&SHARED.after),
        "something beside the buffer has changed"
    );
    println!("{} processors", boot::cpus());
}
