//! The queue of the device of random numbers, with any descriptors.
#![no_main]

use nerite_virtio_rng::exercise::{Step, exercise};

libfuzzer_sys::fuzz_target!(|input: (u64, Vec<Step>)| {
    let (features, steps) = input;
    exercise(features, &steps);
});
