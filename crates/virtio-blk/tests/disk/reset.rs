//! Resets and pauses while the disk works on a request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nerite_memory::GuestRam;
use nerite_virtio::Segment;
use nerite_virtio::fake::WRITE;
use nerite_virtio_blk::{Disk, Range};

use crate::bench::{Bench, DATA, FLUSH, HEADER, IN, OK, STATUS, wait};

/// Control over a [`Slow`] disk.
#[derive(Default)]
struct Gate {
    /// Number of calls that may complete; further ones wait.
    allowed: AtomicU64,
    entered: AtomicU64,
    left: AtomicU64,
}

impl Gate {
    fn pass(&self) {
        let number = self.entered.fetch_add(1, Ordering::AcqRel);
        while self.allowed.load(Ordering::Acquire) <= number {
            std::thread::yield_now();
        }
    }

    fn leave(&self) {
        self.left.fetch_add(1, Ordering::AcqRel);
    }

    /// Waits until call number `number` has come.
    fn reached(&self, number: u64) {
        wait(|| (self.entered.load(Ordering::Acquire) >= number).then_some(()));
    }

    fn open(&self) {
        self.allowed.store(u64::MAX, Ordering::Release);
    }
}

/// A disk of 100 MiB full of 0x55, each call of which waits for the test. A read fills all that it
/// is asked for.
struct Slow(Arc<Gate>);

impl Disk for Slow {
    fn sectors(&self) -> u64 {
        200 << 10
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, ram: &GuestRam, to: &[Segment], _: u64) -> io::Result<u64> {
        self.0.pass();
        for piece in to {
            ram.write(piece.address, &vec![0x55; piece.length as usize]).unwrap();
        }
        self.0.leave();
        Ok(to.iter().map(|piece| u64::from(piece.length)).sum())
    }

    fn write(&mut self, _: &GuestRam, from: &[Segment], _: u64) -> io::Result<u64> {
        self.0.pass();
        self.0.leave();
        Ok(from.iter().map(|piece| u64::from(piece.length)).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.pass();
        self.0.leave();
        Ok(())
    }

    fn discard(&mut self, _: Range) -> io::Result<()> {
        self.flush()
    }

    fn zero(&mut self, _: Range, _: bool) -> io::Result<()> {
        self.flush()
    }
}

/// A device whose disk waits, until this is dropped.
struct SlowBench {
    bench: Bench,
    gate: Arc<Gate>,
}

impl Drop for SlowBench {
    fn drop(&mut self) {
        self.gate.open();
    }
}

fn slow() -> SlowBench {
    let gate = Arc::new(Gate::default());
    SlowBench { bench: Bench::new(Box::new(Slow(gate.clone()))), gate }
}

/// 2 MiB in pieces of 64 KiB, all of them the same buffer but for the first.
const PIECES: u64 = 32;
const PIECE: u32 = 64 << 10;

impl SlowBench {
    fn add(&mut self, kind: u32, sector: u64) {
        let Bench { ram, queue, driver, .. } = &mut self.bench;
        ram.write_obj(HEADER, &u64::from(kind)).unwrap();
        ram.write_obj(HEADER + 8, &sector).unwrap();
        ram.write(STATUS, &[0xaa]).unwrap();
        let mut buffers = vec![(HEADER, 16, 0)];
        if kind == IN {
            buffers
                .extend((0..PIECES).map(|number| (DATA + number * u64::from(PIECE), PIECE, WRITE)));
        }
        buffers.push((STATUS, 1, WRITE));
        queue.add(&buffers);
        driver.kick(0);
    }

    /// All that the device could write to: rings, answer, data.
    fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; 3 << 20];
        self.bench.ram.read(nerite_virtio::fake::RAM, &mut bytes).unwrap();
        bytes
    }
}

#[test]
fn a_reset_gives_up_the_request_and_its_buffer() {
    let mut slow = slow();
    slow.add(IN, 0);
    slow.gate.reached(1);
    // No vCPU waits: this returns although the disk does not.
    slow.bench.driver.set_status(0);
    assert_ne!(slow.bench.driver.status(), 0, "the buffer is still the device's");
    slow.gate.open();
    slow.bench.driver.reset();
    let calls = slow.gate.entered.load(Ordering::Acquire);
    assert!(calls < 8, "{calls} of eight chunks, after a reset in the first one");
    let memory = slow.memory();
    std::thread::sleep(Duration::from_millis(50));
    assert!(slow.memory() == memory, "memory is touched after a reset");
    assert_eq!(slow.bench.ram.read_obj::<u8>(STATUS).unwrap(), 0xaa, "no answer");
    assert_eq!(slow.bench.queue.take_used(), None);
    slow.bench.start(u64::MAX);
    slow.add(IN, 0);
    let (_, written) = wait(|| slow.bench.queue.take_used());
    assert_eq!((written, slow.bench.ram.read_obj(STATUS).unwrap()), (2_097_153, OK));
}

#[test]
fn resets_at_any_moment_leave_the_buffer_alone() {
    let mut slow = slow();
    slow.gate.open();
    for turn in 0..200 {
        slow.add(IN, 0);
        for _ in 0..turn * 50 {
            std::hint::spin_loop();
        }
        slow.bench.driver.reset();
        slow.bench.ram.zero(DATA, u64::from(PIECE) * PIECES).unwrap();
        let memory = slow.memory();
        std::thread::yield_now();
        assert!(slow.memory() == memory, "memory is touched after reset {turn}");
        slow.bench.start(u64::MAX);
    }
}

#[test]
fn a_reset_does_not_wait_for_a_flush() {
    let mut slow = slow();
    slow.add(FLUSH, 0);
    slow.gate.reached(1);
    slow.bench.driver.set_status(0);
    assert_eq!(slow.bench.driver.status(), 0, "a flush touches no memory");
    slow.bench.start(u64::MAX);
    let memory = slow.memory();
    slow.gate.open();
    wait(|| (slow.gate.left.load(Ordering::Acquire) == 1).then_some(()));
    std::thread::sleep(Duration::from_millis(5));
    assert!(slow.memory() == memory, "an answer for a driver that is gone");
    slow.add(FLUSH, 0);
    wait(|| slow.bench.queue.take_used());
}

#[test]
fn a_request_that_a_pause_interrupts_is_done_after_it() {
    let mut slow = slow();
    slow.add(IN, 0);
    slow.gate.reached(1);
    let driver = slow.bench.driver.clone();
    let is_off = Arc::new(AtomicBool::new(false));
    let set = is_off.clone();
    let thread = std::thread::spawn(move || {
        driver.set_bus_master(false);
        set.store(true, Ordering::Release);
    });
    // The chunk that is under way ends first, and no other begins.
    std::thread::sleep(Duration::from_millis(5));
    assert!(!is_off.load(Ordering::Acquire));
    slow.gate.open();
    thread.join().unwrap();
    let calls = slow.gate.entered.load(Ordering::Acquire);
    assert!(calls < 8, "{calls}");
    let memory = slow.memory();
    std::thread::sleep(Duration::from_millis(20));
    assert!(slow.memory() == memory, "memory is touched without bus mastering");
    slow.bench.driver.set_bus_master(true);
    assert_eq!(wait(|| slow.bench.queue.take_used()).1, 2_097_153);
    assert_eq!(slow.bench.ram.read_obj::<u8>(STATUS).unwrap(), OK);
}

#[test]
fn a_request_that_a_halt_interrupts_is_done_after_it() {
    let mut slow = slow();
    slow.add(IN, 0);
    slow.gate.reached(1);
    let function = slow.bench.function.clone();
    let halts = function.clone();
    let thread = std::thread::spawn(move || halts.device().halt());
    std::thread::sleep(Duration::from_millis(5));
    slow.gate.open();
    thread.join().unwrap();
    assert!(slow.gate.entered.load(Ordering::Acquire) < 8);
    assert_eq!(slow.bench.queue.take_used(), None);
    function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(()))).unwrap();
    assert_eq!(wait(|| slow.bench.queue.take_used()).1, 2_097_153);
}
