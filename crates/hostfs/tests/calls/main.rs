//! Any calls a guest can make, from bytes: the same that the targets in `fuzz/` do with more
//! patience.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "numbers for calls are cut from random ones")]

mod exercise;

use proptest::prelude::*;

#[test]
fn calls_that_were_thought_of() {
    // Opens /data/a, writes, seeks far, writes, asks for its size, closes and removes it; opens
    // /data and lists it.
    let bytes = [
        &[0, 1, 3, 7, 0, 0, 0o102][..],
        &[3, 100, 3],
        &[4, 3, 20, 1, 1, 1],
        &[3, 50, 3],
        &[8, 3],
        &[1, 3],
        &[5, 1, 3, 7],
        &[0, 0, 3, 0, 0, 0],
        &[9, 3, 0, 255, 255],
    ];
    assert_eq!(exercise::calls(&bytes.concat()), bytes.len());
    exercise::path(b"/../a/./b//c/..");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_calls(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let succeeded = exercise::calls(&bytes);
        prop_assert!(succeeded <= 200);
    }

    #[test]
    fn any_path(bytes in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..5000)) {
        exercise::path(&bytes);
    }
}
