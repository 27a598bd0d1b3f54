//! Any accesses of a machine's interrupt chips, by ports, memory, MSRs, lines and messages, at any
//! times.
#![no_main]

use nerite_irqchip::IoApicVersion;

#[path = "../../crates/irqchip/tests/hostile/exercise.rs"]
mod exercise;

/// Accesses of one input.
const STEPS: usize = 400;

libfuzzer_sys::fuzz_target!(|input: (bool, Vec<exercise::Step>)| {
    let (has_eoi_register, steps) = input;
    let version =
        if has_eoi_register { IoApicVersion::WithEoiRegister } else { IoApicVersion::Original };
    exercise::run(version, steps.into_iter().take(STEPS));
});
