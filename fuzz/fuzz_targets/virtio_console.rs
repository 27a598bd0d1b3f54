//! A console's queues, with any descriptors and input.
#![no_main]

use nerite_virtio_console::exercise::{Step, exercise};

libfuzzer_sys::fuzz_target!(|input: (u64, Vec<Step>)| {
    let (features, steps) = input;
    exercise(features, &steps);
});
