//! Any bytes as the files of a snapshot, or changes of right ones.
#![no_main]

#[path = "../../crates/snapshot/tests/hostile/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|input: (bool, &[u8], &[u8])| {
    let (changes, state, memory) = input;
    exercise::run(&exercise::Input { state, memory, changes });
});
