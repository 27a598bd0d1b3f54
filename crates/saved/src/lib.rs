#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

pub mod bytes;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use error::{RestoreError, SaveError, check_version, refuse, require_same};
