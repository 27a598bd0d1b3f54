//! Any bytes as state, tables and code of the processor in software.
#![no_main]

#[path = "../../crates/x86/tests/random/exercise.rs"]
mod exercise;
#[path = "../../crates/x86/tests/machine/mod.rs"]
mod machine;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    exercise::run(bytes);
});
