//! Images of containers: layers of any entries, and any text in place of each document.
#![no_main]

#[path = "../../crates/image/tests/hostile/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|input: (Vec<Vec<exercise::Step>>, &[u8])| {
    let (layers, text) = input;
    exercise::run(&layers, text);
});
