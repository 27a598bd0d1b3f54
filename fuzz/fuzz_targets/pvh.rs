//! Kernels with a PVH note: parsed, looked at and loaded, on any bytes.
#![no_main]

use nerite_loader::Protocol;

#[path = "../../crates/loader/tests/kernels/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exercise::exercise(bytes, Some(Protocol::Pvh)));
