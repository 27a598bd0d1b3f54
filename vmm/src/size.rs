//! Memory sizes as people write them: `64M`, `64MiB`, `1.5G`, `536870912`.
//!
//! `K`, `M`, `G`, `T` and `KiB`, `MiB`, `GiB`, `TiB` are powers of 1024; `KB`, `MB`, `GB`, `TB` are
//! powers of 1000; a number alone is in bytes. Letters may be in either case, and a size is always
//! in bytes, never in bits.

use std::str::FromStr;

use nerite_machine::config::{MEMORY_GRANULARITY, MIN_MEMORY};

/// The most digits taken after the decimal point. Nine are enough for one byte of a gibibyte.
const MAX_FRACTION_DIGITS: u32 = 9;

const MIB: u64 = 1 << 20;

/// A guest memory size in bytes: at least 16 MiB, and a multiple of 2 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

impl MemorySize {
    /// Checks a number of bytes.
    ///
    /// # Errors
    ///
    /// If the guest could not be given exactly that much.
    pub fn new(bytes: u64) -> Result<Self, SizeError> {
        if bytes < MIN_MEMORY {
            return Err(SizeError::TooSmall { bytes });
        }
        if !bytes.is_multiple_of(MEMORY_GRANULARITY) {
            return Err(SizeError::NotWholePages { bytes });
        }
        Ok(Self(bytes))
    }

    /// The size in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// Text that is not a guest memory size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SizeError {
    /// There is no number, or more than a number and a unit.
    #[error("not a size; write a number and a unit, such as 64M or 1.5GiB")]
    Syntax,
    /// The unit is not known.
    #[error(
        "unknown unit `{0}`; use K, M, G or T (powers of 1024), KiB, MiB, GiB or TiB (the same), \
         or KB, MB, GB or TB (powers of 1000)"
    )]
    Unit(String),
    /// The number of bytes is not a whole number, or does not fit 64 bits.
    #[error("not a whole number of bytes that fits 64 bits")]
    OutOfRange,
    /// Less than a guest needs.
    #[error("{bytes} bytes are too little memory: the least is 16 MiB")]
    TooSmall {
        /// The size that was asked for.
        bytes: u64,
    },
    /// Not a multiple of 2 MiB.
    #[error("{bytes} bytes are not a multiple of 2 MiB; the nearest sizes are {} and {}", nearest(*.bytes).0,
        nearest(*.bytes).1)]
    NotWholePages {
        /// The size that was asked for.
        bytes: u64,
    },
}

/// The multiples of 2 MiB below and above `bytes`, in words.
fn nearest(bytes: u64) -> (String, String) {
    let below = bytes / MEMORY_GRANULARITY * (MEMORY_GRANULARITY / MIB);
    (format!("{below}MiB"), format!("{}MiB", below + MEMORY_GRANULARITY / MIB))
}

impl FromStr for MemorySize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        Self::new(parse_bytes(text)?)
    }
}

/// The number of bytes that `text` stands for.
///
/// # Errors
///
/// If it is not a number with a known unit, or the result is not a whole number below 2^64.
pub fn parse_bytes(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = u32::try_from(fraction.len()).unwrap_or(u32::MAX);
    if digits > MAX_FRACTION_DIGITS {
        return Err(SizeError::OutOfRange);
    }
    let whole = parse_digits(whole)?;
    let scale = 10_u128.pow(digits);
    let fraction = parse_digits(fraction)?;
    let unit = unit_bytes(unit.trim_start())?;
    let scaled = u128::from(fraction) * u128::from(unit);
    if !scaled.is_multiple_of(scale) {
        return Err(SizeError::OutOfRange);
    }
    let bytes = u128::from(whole) * u128::from(unit) + scaled / scale;
    u64::try_from(bytes).map_err(|_| SizeError::OutOfRange)
}

fn parse_digits(digits: &str) -> Result<u64, SizeError> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SizeError::Syntax);
    }
    digits.parse().map_err(|_| SizeError::OutOfRange)
}

/// Number of bytes in one of `unit`.
fn unit_bytes(unit: &str) -> Result<u64, SizeError> {
    Ok(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(SizeError::Unit(unit.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_numbers_are_bytes() {
        assert_eq!(parse_bytes("67108864"), Ok(64 << 20));
        assert_eq!(parse_bytes("67108864B"), Ok(64 << 20));
    }

    #[test]
    fn letters_and_the_binary_names_are_powers_of_1024() {
        for text in ["64M", "64m", "64MiB", "64mib", "64 MiB", " 64M "] {
            assert_eq!(parse_bytes(text), Ok(64 << 20), "{text}");
        }
        assert_eq!(parse_bytes("2K"), Ok(2048));
        assert_eq!(parse_bytes("5G"), Ok(5 << 30));
        assert_eq!(parse_bytes("1TiB"), Ok(1 << 40));
    }

    #[test]
    fn names_without_i_are_powers_of_1000() {
        assert_eq!(parse_bytes("512MB"), Ok(512_000_000));
        assert_eq!(parse_bytes("1kB"), Ok(1000));
        assert_eq!(parse_bytes("3GB"), Ok(3_000_000_000));
    }

    #[test]
    fn fractions_must_come_out_whole() {
        assert_eq!(parse_bytes("1.5G"), Ok(3 << 29));
        assert_eq!(parse_bytes("0.5KiB"), Ok(512));
        assert_eq!(parse_bytes("0.3B"), Err(SizeError::OutOfRange));
        assert_eq!(parse_bytes("1.0000000001G"), Err(SizeError::OutOfRange));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "M", ".", "1.", ".5G", "1.2.3M", "-1M", "+1M", "0x10"] {
            assert!(
                matches!(parse_bytes(text), Err(SizeError::Syntax | SizeError::Unit(_))),
                "{text}"
            );
            assert!(text.starts_with('0') || parse_bytes(text) == Err(SizeError::Syntax), "{text}");
        }
        assert_eq!(parse_bytes("64MM"), Err(SizeError::Unit("MM".to_owned())));
        assert_eq!(parse_bytes("64Mbit"), Err(SizeError::Unit("Mbit".to_owned())));
        assert_eq!(parse_bytes("64M 2"), Err(SizeError::Unit("M 2".to_owned())));
        assert_eq!(parse_bytes("18446744073709551616"), Err(SizeError::OutOfRange));
        assert_eq!(parse_bytes("99999999T"), Err(SizeError::OutOfRange));
    }

    #[test]
    fn guest_memory_has_a_least_size_and_a_granularity() {
        assert_eq!("16M".parse(), MemorySize::new(16 << 20));
        assert_eq!("16M".parse::<MemorySize>().map(MemorySize::bytes), Ok(16 << 20));
        assert!(matches!("15M".parse::<MemorySize>(), Err(SizeError::TooSmall { .. })));
        assert!(matches!("17M".parse::<MemorySize>(), Err(SizeError::NotWholePages { .. })));
    }

    #[test]
    fn a_decimal_size_names_its_neighbours() {
        let error = "512MB".parse::<MemorySize>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "512000000 bytes are not a multiple of 2 MiB; the nearest sizes are 488MiB and 490MiB"
        );
    }
}
