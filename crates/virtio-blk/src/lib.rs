#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod config;
mod counters;
mod device;
mod disk;
#[cfg(feature = "exercise")]
pub mod exercise;
mod file;
mod request;
mod spec;
mod vectors;

// Crates whose types are in this one's interface.
pub use nerite_virtio;

pub use config::{MAX_DISCARD_SECTORS, MAX_REQUEST, MAX_SEGMENTS, MAX_ZERO_SECTORS, feature};
pub use counters::Totals;
pub use device::{Blk, BlkState, QUEUE_SIZE};
pub use disk::{Disk, Range, SECTOR};
pub use file::{OpenError, RawFile};
pub use spec::{MAX_SERIAL, Spec, SpecError};
