//! Numbers on the command line.

use std::num::ParseIntError;

/// A number, hexadecimal after `0x`.
///
/// # Errors
///
/// If it is not one, or does not fit 64 bits.
pub fn parse_number(text: &str) -> Result<u64, ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16),
        _ => text.parse(),
    }
}
