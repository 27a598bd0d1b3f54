//! Any buffers at all, for the fuzz target and the property test that look for some that the device
//! does not stand.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test support; a failure is what it looks for"
)]

use std::time::Duration;

use nerite_virtio::VirtioDevice as _;
use nerite_virtio::fake::Bench;
pub use nerite_virtio::fake::Step;

use crate::{Balloon, PAGE};

/// Does what a step says.
fn step(bench: &mut Bench<Balloon>, step: Step) {
    match step.0 {
        0..120 => bench.scribble(usize::from(step.0) % 3, step),
        120..144 => bench.spoil(step),
        144..150 => bench.device.pause(),
        150..160 => bench.device.resume(),
        160..168 => drop(bench.device.set_target(u32::from(step.1))),
        168..176 => bench.device.write_config(u64::from(step.1 % 9), 4, step.2),
        176..180 => assert_eq!(bench.device.statistics(Duration::ZERO), None),
        _ => drop(bench.device.turn()),
    }
}

/// Has a driver do these steps, until it makes a mistake; then on a fresh device. At the end, it
/// gives a page.
///
/// # Panics
/// If something is not as it has to be.
pub fn exercise(features: u64, steps: &[Step]) {
    let make = || Balloon::new().expect("a device");
    let turn = |balloon: &Balloon| balloon.turn();
    let mut bench = Bench::exercise(make, features, steps, step, turn);
    let before = bench.device.totals();
    // The page after the one with its number.
    let (number, page) = (Bench::<Balloon>::BUFFERS, Bench::<Balloon>::BUFFERS + PAGE);
    let index = u32::try_from(page / PAGE).expect("a low page");
    bench.ram.write(number, &index.to_le_bytes()).expect("RAM");
    bench.ram.write(page, &[1; 16]).expect("RAM");
    bench.queues[0].add(&[(number, 4, 0)]);
    while bench.device.turn() {}
    assert_eq!(bench.queues[0].take_used(), Some((0, 0)));
    assert_eq!(bench.ram.read_obj::<[u8; 16]>(page).expect("RAM"), [0; 16]);
    let totals = bench.device.totals();
    assert_eq!((totals.given - before.given, totals.refused - before.refused), (1, 0));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_driver_that_does_anything_does_no_harm(
            features: u64,
            steps in prop::collection::vec(any::<Step>(), 0..Bench::<Balloon>::STEPS),
        ) {
            exercise(features, &steps);
        }
    }
}
