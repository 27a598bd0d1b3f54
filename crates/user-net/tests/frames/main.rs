//! Any frames of a guest. The fuzz target `user_net` does the same.

#![cfg(test)]

#[allow(unreachable_pub, reason = "the fuzz target compiles it, too")]
mod exercise;

use exercise::run;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn frames_are_limited_whatever_the_guest_sends(
        steps in vec((any::<u8>(), vec(any::<u8>(), 0..200), any::<u32>()), 0..80),
    ) {
        run(&steps);
    }
}
