//! Archives: any bytes as a tar archive, and as a gzip stream if they begin like one.
#![no_main]

#[path = "../../crates/loader/tests/loader/exercise.rs"]
#[allow(dead_code, reason = "each target uses one of its functions")]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = if bytes.starts_with(&[0x1f, 0x8b]) {
        exercise::image(bytes.to_vec())
    } else {
        exercise::image_tar(bytes)
    };
});
