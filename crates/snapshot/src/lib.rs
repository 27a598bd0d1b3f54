#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod base;
mod digest;
mod error;
mod files;
mod manifest;
mod staging;

pub use digest::Digest;
pub use error::Error;
pub use files::{Files, Snapshot};
pub use manifest::{FORMAT, MAX_STATE, Manifest, Region};
pub use staging::Staging;
