//! A network card's queues, with any descriptors and indices.
#![no_main]

use nerite_virtio_net::exercise::{Step, exercise};

libfuzzer_sys::fuzz_target!(|input: (u64, Vec<Step>)| {
    let (features, steps) = input;
    exercise(features, &steps);
});
