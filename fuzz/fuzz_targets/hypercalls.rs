//! Hypercalls of both interfaces with any blocks, in memory with any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    nerite_machine::exercise::hypercalls(bytes).expect("the host has memory");
});
