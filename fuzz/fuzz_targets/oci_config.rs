//! Any text as the `config.json` of a container, or changes of a right one.
#![no_main]

#[path = "../../oci/tests/config/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|input: (Option<&[u8]>, Vec<exercise::Change>)| {
    let (text, changes) = input;
    exercise::run(text, &changes);
});
