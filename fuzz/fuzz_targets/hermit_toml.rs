//! The configuration of an image, on any bytes.
#![no_main]

#[path = "../../crates/loader/tests/loader/exercise.rs"]
#[allow(dead_code, reason = "each target uses one of its functions")]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = exercise::hermit_toml(bytes);
});
