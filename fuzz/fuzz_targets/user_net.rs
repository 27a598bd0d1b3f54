//! Any frames of a guest to the stack of user-mode networking.
#![no_main]

#[path = "../../crates/user-net/tests/frames/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|steps: Vec<exercise::Step>| exercise::run(&steps));
