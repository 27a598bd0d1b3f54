//! An MSI-X table, with any accesses and a hypervisor that refuses messages.
#![no_main]

use nerite_pci::exercise::{Step, exercise};

libfuzzer_sys::fuzz_target!(|steps: Vec<Step>| exercise(&steps));
