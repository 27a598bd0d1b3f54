//! Values of options: parsers of the command line, applied to the keys of a configuration file.

use std::fmt::{self, Display};
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::de::{self, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::size::{SizeError, parse_bytes};

/// Reads a key whose value is the text, or the integer, that the command line takes.
pub(crate) fn parsed<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    Scalar::deserialize(deserializer)?.0.parse().map(Some).map_err(de::Error::custom)
}

/// Reads a key whose value is a text that `parse` takes on the command line.
pub(crate) fn parsed_by<'de, D, T, E>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    E: Display,
{
    parse(&Scalar::deserialize(deserializer)?.0).map(Some).map_err(de::Error::custom)
}

/// Reads a key whose value is a list of the texts that the command line takes.
pub(crate) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    list_by(deserializer, str::parse)
}

/// Reads a key whose value is a list of texts that `parse` takes on the command line.
pub(crate) fn list_by<'de, D, T, E>(
    deserializer: D,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    E: Display,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts
        .iter()
        .map(|text| {
            without_nul(text).and_then(|text| parse(text).map_err(|error| error.to_string()))
        })
        .collect::<Result<_, _>>()
        .map_err(de::Error::custom)
}

/// Reads a text without NUL characters, which would end it early in the guest.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    without_nul(&text).map_err(de::Error::custom)?;
    Ok(Some(text))
}

fn without_nul(text: &str) -> Result<&str, String> {
    if text.contains('\0') { Err(format!("{text:?} contains a zero byte")) } else { Ok(text) }
}

/// A number of bytes with or without a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        parse_bytes(text).map(Self)
    }
}

/// A rate in bytes a second, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub NonZeroU64);

/// The text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not a size.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// A rate of zero.
    #[error("a guest must be allowed at least one byte of output in a second")]
    Zero,
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        NonZeroU64::new(parse_bytes(text)?).map(Self).ok_or(RateError::Zero)
    }
}

/// A text, or an integer as text.
pub(super) struct Scalar(pub(super) String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                if number < 0 {
                    return Err(E::invalid_value(
                        Unexpected::Signed(number),
                        &"a number that is not negative",
                    ));
                }
                Ok(Scalar(number.to_string()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

/// Reads a list of numbers, or the text that stands for one on the command line.
pub(crate) fn numbers<'de, D, T, E>(
    deserializer: D,
    from_list: impl FnOnce(Vec<usize>) -> Result<T, E>,
) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = E>,
    E: Display,
{
    struct ListOrText;
    enum Given {
        List(Vec<usize>),
        Text(String),
    }
    impl<'de> Visitor<'de> for ListOrText {
        type Value = Given;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of host CPUs, such as [0, 1] or \"0-1\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Given, E> {
            Ok(Given::Text(text.to_owned()))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Given, A::Error> {
            let mut numbers = Vec::new();
            while let Some(number) = list.next_element()? {
                numbers.push(number);
            }
            Ok(Given::List(numbers))
        }
    }
    match deserializer.deserialize_any(ListOrText)? {
        Given::List(numbers) => from_list(numbers),
        Given::Text(text) => text.parse(),
    }
    .map(Some)
    .map_err(de::Error::custom)
}
