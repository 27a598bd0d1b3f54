//! Guest paths, of any bytes.
#![no_main]

#[path = "../../crates/hostfs/tests/calls/exercise.rs"]
#[allow(dead_code, reason = "each target uses one of its functions")]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exercise::path(bytes));
