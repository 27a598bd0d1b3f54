use serde_json::{Value, json};

use super::*;

fn manifest(memory: &[(u64, u64)]) -> Manifest<Value> {
    Manifest {
        writer: "test 1".to_owned(),
        memory: memory.iter().map(|&(start, size)| Region { start, size }).collect(),
        memory_digest: Digest::of(b"memory"),
        image_digest: Digest::of(b"image"),
        state: json!({ "answer": 42 }),
    }
}

#[test]
fn a_manifest_is_read_as_it_was_written() {
    let written = manifest(&[(0, 0x1000), (0x1_0000_0000, 0x20_0000)]);
    let text = written.to_text().unwrap();
    assert_eq!(Manifest::<Value>::from_text(&text).unwrap(), written);
    assert_eq!(written.memory_size().unwrap(), 0x20_1000);
}

#[test]
fn memory_that_no_file_can_hold_is_refused() {
    for (memory, part) in [
        (&[][..], "number of memory regions"),
        (&[(0, 0)], "whole pages"),
        (&[(1, 0x1000)], "whole pages"),
        (&[(0, 0x1001)], "whole pages"),
        (&[(0x1000, 0x1000), (0, 0x1000)], "not in order"),
        (&[(0, 0x2000), (0x1000, 0x1000)], "overlap"),
        (&[(u64::MAX - 0xfff, 0x1000)], "out of range"),
        (&[(0, 1 << 63)], "out of range"),
        (&[(0, 0x1000); 65], "number of memory regions"),
    ] {
        let error = manifest(memory).memory_size().unwrap_err().to_string();
        assert!(error.contains(part), "{memory:x?}: {error}");
        assert!(manifest(memory).to_text().is_err(), "nor is it written");
    }
}

#[test]
fn another_format_is_named_whatever_else_it_has() {
    for (text, expected) in [
        (r#"{"format":2,"colour":"red"}"#, "format 2; this version reads format 1 only"),
        (r#"{"format":18446744073709551615}"#, "format 18446744073709551615"),
        (r#"{"format":-1}"#, "malformed"),
        (r#"{"content":{}}"#, "format"),
        ("", "malformed"),
        ("[1]", "malformed"),
    ] {
        let error = Manifest::<Value>::from_text(text.as_bytes()).unwrap_err();
        let error = nerite_log_budget::Causes(&error).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

/// Every single bit of the text matters, but for those of white space that stays white space.
#[test]
fn a_flipped_bit_is_found() {
    let written = manifest(&[(0, 0x1000)]);
    let text = written.to_text().unwrap();
    for byte in 0..text.len() {
        for bit in 0..8 {
            let mut flipped = text.clone();
            flipped[byte] ^= 1 << bit;
            match Manifest::<Value>::from_text(&flipped) {
                Err(error) => assert!(error.is_bad_snapshot()),
                Ok(read) => {
                    assert_eq!(read, written);
                    assert!(
                        text[byte].is_ascii_whitespace() || flipped[byte].is_ascii_alphabetic(),
                        "{byte}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_truncated_text_is_refused() {
    let text = manifest(&[(0, 0x1000)]).to_text().unwrap();
    // The last byte is a newline.
    for length in 0..text.len() - 1 {
        assert!(Manifest::<Value>::from_text(&text[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_state_beyond_the_limit_is_not_written() {
    let mut large = manifest(&[(0, 0x1000)]);
    large.state = json!("x".repeat(usize::try_from(MAX_STATE).unwrap()));
    assert!(matches!(large.to_text(), Err(Error::TooLarge { .. })));
}
