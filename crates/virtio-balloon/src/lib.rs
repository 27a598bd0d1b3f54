#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod device;
#[cfg(feature = "exercise")]
pub mod exercise;
mod live;
mod statistics;

// The crate whose types are in this one's interface.
pub use nerite_virtio;

pub use device::{Balloon, BalloonState};
pub use live::{PAGE, Totals};
pub use statistics::GuestStatistics;
