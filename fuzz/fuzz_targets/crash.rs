//! A crashed guest of any memory and registers: its backtraces, its memory, its core file.
#![no_main]

#[path = "../../crates/inspect/tests/hostile/exercise.rs"]
mod exercise;

type Words = Vec<(u16, u64)>;
type Addresses = ([u64; 3], [(u64, u64); 2], (u64, u16));

libfuzzer_sys::fuzz_target!(|input: (Words, &[u8], Addresses)| {
    let (words, name, (pointers, tables, access)) = input;
    exercise::run(&exercise::Input { words: &words, name, pointers, tables, access });
});
