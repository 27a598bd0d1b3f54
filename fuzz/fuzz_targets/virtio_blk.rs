//! A disk's queue, with any descriptors and requests.
#![no_main]

use nerite_virtio_blk::exercise::{Step, exercise};

libfuzzer_sys::fuzz_target!(|input: (u64, Vec<Step>)| {
    let (features, steps) = input;
    exercise(features, &steps);
});
