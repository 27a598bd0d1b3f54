//! A crashed guest of any memory and registers: its backtraces, its memory, its core file.
#![no_main]

#[path = "../../crates/inspect/tests/hostile/exercise.rs"]
mod exercise;

type Words = Vec<(u16, u64)>;

libfuzzer_sys::fuzz_target!(|input: (Words, &[u8], [u64; 3], [(u64, u64); 2], (u64, u16))| {
    let (words, name, pointers, tables, access) = input;
    exercise::run(&exercise::Input { words: &words, name, pointers, tables, access });
});
