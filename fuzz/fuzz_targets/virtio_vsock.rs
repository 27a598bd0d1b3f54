//! The queues of sockets, with any descriptors and packets.
#![no_main]

use nerite_virtio_vsock::exercise::{Step, exercise};

libfuzzer_sys::fuzz_target!(|input: (u64, Vec<Step>)| {
    let (features, steps) = input;
    exercise(features, &steps);
});
