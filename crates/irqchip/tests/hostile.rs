//! Hostile guests: random accesses of all chips.

#![cfg(test)]

use nerite_irqchip::IoApicVersion;
use proptest::prelude::*;

#[path = "hostile/exercise.rs"]
mod exercise;

proptest! {
    #[test]
    fn any_accesses_are_the_same_in_both_forms(
        steps in prop::collection::vec(any::<exercise::Step>(), 0..150),
        has_eoi_register in any::<bool>(),
    ) {
        let version = if has_eoi_register { IoApicVersion::WithEoiRegister } else { IoApicVersion::Original };
        exercise::run(version, steps);
    }
}
