//! The file calls of a guest, as any bytes stand for them.
#![no_main]

#[path = "../../crates/hostfs/tests/calls/exercise.rs"]
#[allow(dead_code, reason = "each target uses one of its functions")]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = exercise::calls(bytes);
});
