//! Byte strings for `#[serde(with = "nerite_saved::bytes")]`: two hexadecimal digits a byte where
//! the format is for people, the bytes themselves elsewhere.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A byte string where an attribute cannot be, as in an `Option`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(#[serde(with = "crate::bytes")] pub Vec<u8>);

/// Serializes bytes.
///
/// # Errors
/// Fails if the serializer does.
pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if !serializer.is_human_readable() {
        return serializer.serialize_bytes(bytes);
    }
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().map_or('0', char::from);
    let text: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    serializer.serialize_str(&text)
}

/// Deserializes bytes.
///
/// # Errors
/// Fails if the deserializer does, or the text is not hexadecimal.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    if deserializer.is_human_readable() {
        deserializer.deserialize_str(BytesVisitor)
    } else {
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes, as hexadecimal digits in text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let digit =
            |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |&[high, low]: &[u8; 2]| Some(digit(high)? << 4 | digit(low)?);
        let bytes = pairs.iter().map(byte).collect::<Option<Vec<_>>>().filter(|_| rest.is_empty());
        bytes.ok_or_else(|| E::custom("a byte string is not an even number of hexadecimal digits"))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<u8>, A::Error> {
        // Nothing is reserved for a length that is only claimed.
        let mut bytes = Vec::new();
        while let Some(byte) = elements.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes as Saved;

    #[test]
    fn text_has_two_digits_a_byte() {
        let saved = Saved(vec![0, 0x1f, 0xff]);
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(text, "\"001fff\"");
        assert_eq!(serde_json::from_str::<Saved>(&text).unwrap(), saved);
        assert_eq!(serde_json::from_str::<Saved>("\"FF\"").unwrap(), Saved(vec![0xff]));
    }

    #[test]
    fn text_that_is_not_hexadecimal_is_refused() {
        for text in ["\"0\"", "\"0g\"", "\"+1\"", "\"é0\"", "7", "[1]"] {
            assert!(serde_json::from_str::<Saved>(text).is_err(), "{text}");
        }
    }
}
