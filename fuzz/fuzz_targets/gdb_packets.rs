//! Any packets to the GDB server, whole sessions of them, in front of a machine that is made up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nerite_gdb::exercise::exercise(bytes));
