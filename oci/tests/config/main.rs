//! Descriptions of containers of any contents. The fuzz target `oci_config` does the same.

#![cfg(test)]

#[allow(unreachable_pub, reason = "the fuzz target compiles it, too")]
mod exercise;

use exercise::run;
use proptest::collection::vec;
use proptest::prelude::*;

/// Texts that have a meaning somewhere.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[-/.:,= a-z0-9]{0,12}",
        Just("--sandbox=off".to_owned()),
        Just("--".to_owned()),
        Just("-".to_owned()),
        Just("/out".to_owned()),
        Just("[\"--seccomp\", \"off\"]".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::json!([text, text]).to_string()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_a_bundle_or_an_error(text in any::<Vec<u8>>()) {
        run(Some(&text), &[]);
    }

    #[test]
    fn a_changed_bundle_says_no_more_than_it_means(
        changes in vec((any::<u8>(), text()), 0..6),
    ) {
        run(None, &changes);
    }
}
