//! Snapshots of any bytes. The fuzz target `snapshot` does the same.

#![cfg(test)]

#[allow(unreachable_pub, reason = "the fuzz target compiles it, too")]
mod exercise;

use exercise::Input;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_snapshot_or_an_error(state in any::<Vec<u8>>(), memory in any::<Vec<u8>>()) {
        exercise::run(&Input { state: &state, memory: &memory, changes: false });
    }

    #[test]
    fn a_changed_snapshot_is_one_or_an_error(state in proptest::collection::vec(any::<u8>(), 0..9),
                                             pages in 0_usize..4, byte in any::<u8>()) {
        exercise::run(&Input { state: &state, memory: &vec![byte; pages * 4096], changes: true });
    }
}
