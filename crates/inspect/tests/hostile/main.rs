//! Crashed guests of any memory and registers. The fuzz target `crash` does the same.

#![cfg(test)]

#[allow(unreachable_pub, reason = "the fuzz target compiles it, too")]
mod exercise;

use exercise::{Input, run};
use proptest::collection::vec;
use proptest::prelude::*;

/// Numbers that are often addresses in RAM, or entries of page tables.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..0x11_0000_u64,
        (0_u64..0x110, 0_u64..0x200).prop_map(|(page, flags)| page << 12 | flags),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn any_guest_has_reports(
        words in vec((any::<u16>(), address()), 0..40),
        name in vec(any::<u8>(), 0..40),
        pointers in [address(), address(), address()],
        tables in [(address(), any::<u64>()), (address(), any::<u64>())],
        access in (address(), any::<u16>()),
    ) {
        run(&Input { words: &words, name: &name, pointers, tables, access });
    }
}
