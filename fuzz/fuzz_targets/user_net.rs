//! The stream to passt with any bytes, and frames of any pieces.
#![no_main]

#[path = "../../crates/net/tests/user/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|steps: Vec<exercise::Step>| exercise::run(&steps));
