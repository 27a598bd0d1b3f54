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

use std::sync::Arc;

pub use nerite_virtio::fake::Step;
use nerite_virtio::fake::{FakeQueue, GuestRam, RAM, Rings, SCRATCH, WRITE, activation, ram};
use nerite_virtio::{Event, Notifier, VirtioDevice as _};

use crate::{MOST, QUEUE_SIZE, Rng, lock};

/// Entries of the ring.
const SIZE: u16 = 16;
/// RAM: rings, then buffers.
const BYTES: u64 = 64 << 10;
const BUFFERS: u64 = RAM + 0x1000;
/// The most steps.
const STEPS: usize = 200;

/// A device without a thread.
struct Bench {
    ram: Arc<GuestRam>,
    rng: Rng,
    queue: FakeQueue,
    notifier: Arc<Notifier>,
}

impl Bench {
    fn new(features: u64) -> Self {
        let ram = ram(BYTES);
        let queue = FakeQueue::new(ram.clone(), Rings::at(RAM, SIZE));
        let none: Arc<[Event]> = Arc::new([]);
        let notifier = Arc::new(Notifier::new(1, none).expect("events"));
        let rng = Rng::new().expect("a device");
        rng.start(activation(&[&queue], QUEUE_SIZE, features, &notifier)).expect("a queue in RAM");
        Self { ram, rng, queue, notifier }
    }

    /// Does what a step says.
    fn step(&mut self, (kind, at, value): Step) {
        match kind {
            0..128 => self.queue.scribble((kind, at, value), BUFFERS),
            128..144 => {
                drop(self.ram.write(BUFFERS + u64::from(at) % SCRATCH, &value.to_le_bytes()))
            }
            144..152 => self.rng.pause(),
            152..160 => self.rng.resume(),
            _ => {
                lock(&self.rng.state).turn();
            }
        }
    }
}

/// Has a driver do these steps, until it makes a mistake; then on a fresh device. At the end, it
/// gets random bytes.
///
/// # Panics
/// If something is not as it has to be.
pub fn exercise(features: u64, steps: &[Step]) {
    let mut bench = Bench::new(features);
    for step in steps.iter().take(STEPS) {
        bench.step(*step);
        if bench.notifier.has_failed() {
            assert!(!lock(&bench.rng.state).turn(), "a device that needs a reset keeps working");
            bench = Bench::new(features);
        }
    }
    let Bench { ram, rng, notifier, .. } = bench;
    // The same device for a driver that knows its trade.
    rng.stop();
    assert!(rng.is_stopped());
    rng.resume();
    ram.zero(RAM, 0x1000).expect("RAM");
    let mut queue = FakeQueue::new(ram, Rings::at(RAM, SIZE));
    rng.start(activation(&[&queue], QUEUE_SIZE, features, &notifier)).expect("a queue in RAM");
    queue.add(&[(BUFFERS, 2 * MOST as u32, WRITE)]);
    assert!(lock(&rng.state).turn());
    assert_eq!(queue.take_used(), Some((0, MOST as u32)));
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
