//! Images of any contents are read or refused. The fuzz target `oci_layout` does the same.

#![cfg(test)]

#[allow(unreachable_pub, reason = "the fuzz target compiles it, too")]
mod exercise;

use std::cell::Cell;

use proptest::collection::vec;
use proptest::prelude::*;

/// Documents that are nearly right.
const TEXTS: [&str; 6] = [
    r#"{"schemaVersion":2,"manifests":[]}"#,
    r#"{"schemaVersion":2,"manifests":[{"mediaType":"","digest":"a:b","size":0}]}"#,
    r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
    r#"{"schemaVersion":-1}"#,
    r#"{"config":{"Env":["="]}}"#,
    "[]",
];

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn layers_of_any_entries_are_a_root_or_an_error() {
    let step = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>());
    let layers = vec(vec(step, 0..12), 0..4);
    let images = Cell::new(0);
    proptest!(config(), |(layers in layers, text in vec(any::<u8>(), 0..1600))| {
        images.set(images.get() + u32::from(exercise::run(&layers, &text)));
    });
    assert!(images.get() >= 10, "only {} are images", images.get());
}

#[test]
fn documents_of_any_text_are_an_image_or_an_error() {
    let text = (0..TEXTS.len(), any::<prop::sample::Index>(), any::<u8>());
    proptest!(config(), |((which, at, byte) in text)| {
        let mut text = TEXTS[which].as_bytes().to_vec();
        let at = at.index(text.len());
        text[at] = byte;
        exercise::run(&[], &text);
        exercise::run(&[], &text[..at]);
    });
}
