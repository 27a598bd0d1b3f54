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

use nerite_virtio::VirtioDevice as _;
pub use nerite_virtio::fake::Step;
use nerite_virtio::fake::{Bench, SCRATCH, WRITE};

use crate::{CHUNK, Console, INPUT, lock};

/// Address of the text that goes out and comes in.
const TEXT: u64 = Bench::<Console>::BUFFERS + SCRATCH;

/// A console without a thread, which writes to `written`.
fn console(written: &Arc<Mutex<Vec<u8>>>) -> Console {
    let console = Console::new().expect("a console");
    let sink = written.clone();
    lock(&console.shared.sink).output = Box::new(move |bytes: &[u8]| {
        assert!(bytes.len() <= CHUNK, "{} bytes at once", bytes.len());
        lock(&sink).extend_from_slice(bytes);
        Ok(())
    });
    console
}

/// Does what a step says.
fn step(bench: &mut Bench<Console>, step: Step) {
    let (kind, at, value) = step;
    match kind {
        0..128 => bench.scribble(usize::from(kind >> 6), step),
        128..144 => bench.spoil(step),
        144..160 => {
            let typed = vec![value as u8; usize::from(at) % (2 * INPUT)];
            assert!(bench.device.enqueue(&typed) <= INPUT);
        }
        160..168 => bench.device.pause(),
        168..176 => bench.device.resume(),
        _ => drop(bench.device.shared.turn()),
    }
}

/// Has a driver do these steps, until it makes a mistake; then on a fresh device. At the end, a
/// text goes out and one comes in.
///
/// # Panics
/// If something is not as it has to be.
pub fn exercise(features: u64, steps: &[Step]) {
    let written = Arc::new(Mutex::new(Vec::new()));
    let one_step = |bench: &mut Bench<Console>, one| {
        step(bench, one);
        lock(&written).clear();
    };
    let turn = |console: &Console| console.shared.turn();
    let mut bench = Bench::exercise(|| console(&written), features, steps, one_step, turn);
    lock(&written).clear();
    bench.ram.write(TEXT, b"out").expect("RAM");
    bench.queues[1].add(&[(TEXT, 3, 0)]);
    while turn(&bench.device) {}
    assert_eq!(*lock(&written), b"out");
    assert_eq!(bench.queues[1].take_used(), Some((0, 0)));
    bench.device.enqueue(b"in");
    bench.queues[0].add(&[(TEXT, 2 * INPUT as u32, WRITE)]);
    while turn(&bench.device) {}
    assert!(bench.queues[0].take_used().is_some_and(|(_, written)| written >= 1));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_driver_that_does_anything_does_no_harm(
            features: u64,
            steps in prop::collection::vec(any::<Step>(), 0..Bench::<Console>::STEPS),
        ) {
            exercise(features, &steps);
        }
    }
}
