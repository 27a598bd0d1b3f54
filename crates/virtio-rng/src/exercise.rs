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

use nerite_virtio::VirtioDevice as _;
pub use nerite_virtio::fake::Step;
use nerite_virtio::fake::{Bench, WRITE};

use crate::{MOST, Rng, lock};

fn turn(rng: &Rng) -> bool {
    lock(&rng.state).turn()
}

/// Does what a step says.
fn step(bench: &mut Bench<Rng>, step: Step) {
    match step.0 {
        0..128 => bench.scribble(0, step),
        128..144 => bench.spoil(step),
        144..152 => bench.device.pause(),
        152..160 => bench.device.resume(),
        _ => drop(turn(&bench.device)),
    }
}

/// Has a driver do these steps, until it makes a mistake; then on a fresh device. At the end, it
/// gets random bytes.
///
/// # Panics
/// If something is not as it has to be.
pub fn exercise(features: u64, steps: &[Step]) {
    let make = || Rng::new().expect("a device");
    let mut bench = Bench::exercise(make, features, steps, step, turn);
    bench.queues[0].add(&[(Bench::<Rng>::BUFFERS, 2 * MOST as u32, WRITE)]);
    assert!(turn(&bench.device));
    assert_eq!(bench.queues[0].take_used(), Some((0, MOST as u32)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_driver_that_does_anything_does_no_harm(
            features: u64,
            steps in prop::collection::vec(any::<Step>(), 0..Bench::<crate::Rng>::STEPS),
        ) {
            exercise(features, &steps);
        }
    }
}
