//! Any buffers at all, for the fuzz target and the property test that look for some that the device
//! does not stand.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "test support; a failure is what it looks for"
)]

use std::sync::{Arc, Mutex};

pub use nerite_virtio::fake::Step;
use nerite_virtio::fake::{FakeQueue, GuestRam, RAM, Rings, SCRATCH, WRITE, activation, ram};
use nerite_virtio::{Event, Notifier, VirtioDevice as _};

use crate::{CHUNK, Console, INPUT, QUEUE_SIZE, lock};

/// Entries of a ring.
const SIZE: u16 = 16;
/// RAM: rings, a page for each queue, then buffers.
const BYTES: u64 = 64 << 10;
const BUFFERS: u64 = RAM + 0x2000;
const TEXT: u64 = BUFFERS + SCRATCH;
/// The most steps.
const STEPS: usize = 200;

/// A console without a thread.
struct Bench {
    ram: Arc<GuestRam>,
    console: Console,
    queues: [FakeQueue; 2],
    notifier: Arc<Notifier>,
    written: Arc<Mutex<Vec<u8>>>,
}

fn queues(ram: &Arc<GuestRam>) -> [FakeQueue; 2] {
    [0, 1].map(|index| FakeQueue::new(ram.clone(), Rings::at(RAM + 0x1000 * index, SIZE)))
}

impl Bench {
    fn new(features: u64) -> Self {
        let ram = ram(BYTES);
        let queues = queues(&ram);
        let none: Arc<[Event]> = Arc::new([]);
        let notifier = Arc::new(Notifier::new(2, none).expect("events"));
        let console = Console::new().expect("a console");
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = written.clone();
        lock(&console.shared.sink).output = Box::new(move |bytes: &[u8]| {
            assert!(bytes.len() <= CHUNK, "{} bytes at once", bytes.len());
            lock(&sink).extend_from_slice(bytes);
            Ok(())
        });
        console
            .start(activation(&[&queues[0], &queues[1]], QUEUE_SIZE, features, &notifier))
            .expect("queues");
        Self { ram, console, queues, notifier, written }
    }

    /// Does what a step says.
    fn step(&mut self, (kind, at, value): Step) {
        match kind {
            0..128 => self.queues[usize::from(kind >> 6)].scribble((kind, at, value), BUFFERS),
            128..144 => {
                drop(self.ram.write(BUFFERS + u64::from(at) % SCRATCH, &value.to_le_bytes()))
            }
            144..160 => {
                assert!(
                    self.console.enqueue(&vec![value as u8; usize::from(at) % (2 * INPUT)])
                        <= INPUT
                );
            }
            160..168 => self.console.pause(),
            168..176 => self.console.resume(),
            _ => {
                self.console.shared.turn();
                lock(&self.written).clear();
            }
        }
    }
}

/// Has a driver do these steps, until it makes a mistake; then on a fresh device. At the end, a
/// text goes out and one comes in.
///
/// # Panics
/// If something is not as it has to be.
pub fn exercise(features: u64, steps: &[Step]) {
    let mut bench = Bench::new(features);
    for step in steps.iter().take(STEPS) {
        bench.step(*step);
        if bench.notifier.has_failed() {
            assert!(!bench.console.shared.turn(), "a device that needs a reset keeps working");
            bench = Bench::new(features);
        }
    }
    let Bench { ram, console, notifier, written, .. } = bench;
    // The same device for a driver that knows its trade.
    console.stop();
    assert!(console.is_stopped());
    console.resume();
    ram.zero(RAM, 0x2000).expect("RAM");
    let mut queues = queues(&ram);
    console
        .start(activation(&[&queues[0], &queues[1]], QUEUE_SIZE, features, &notifier))
        .expect("queues");
    lock(&written).clear();
    ram.write(TEXT, b"out").expect("RAM");
    queues[1].add(&[(TEXT, 3, 0)]);
    while console.shared.turn() {}
    assert_eq!(*lock(&written), b"out");
    assert_eq!(queues[1].take_used(), Some((0, 0)));
    console.enqueue(b"in");
    queues[0].add(&[(TEXT, 2 * INPUT as u32, WRITE)]);
    while console.shared.turn() {}
    assert!(queues[0].take_used().is_some_and(|(_, written)| written >= 1));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_driver_that_does_anything_does_no_harm(
            features: u64,
            steps in prop::collection::vec(any::<Step>(), 0..STEPS),
        ) {
            exercise(features, &steps);
        }
    }
}
