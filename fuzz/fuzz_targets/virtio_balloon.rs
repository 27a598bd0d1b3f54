//! The queues of the balloon, with any descriptors.
#![no_main]

use nerite_virtio_balloon::exercise::{Step, exercise};

libfuzzer_sys::fuzz_target!(|input: (u64, Vec<Step>)| {
    let (features, steps) = input;
    exercise(features, &steps);
});
