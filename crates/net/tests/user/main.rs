//! The stream to passt with any bytes and frames. The fuzz target `user_net` does the same.

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
    fn frames_stay_whole(
        steps in vec((any::<u8>(), vec(any::<u8>(), 0..200), any::<u32>()), 0..60),
    ) {
        run(&steps);
    }
}
