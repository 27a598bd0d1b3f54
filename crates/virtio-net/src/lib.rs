#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod backend;
mod config;
mod control;
mod counters;
mod device;
#[cfg(any(test, feature = "exercise"))]
pub mod exercise;
mod merge;
mod pair;
mod worker;

// Crates whose types are in this one's interface.
pub use nerite_virtio;

pub use backend::{Backend, Engine, HEADER, MAX_FRAME, write_across};
pub use config::{Mac, MacError, NetConfig, feature};
pub use counters::{Counters, QueueCounters, Totals};
pub use device::{Error, Net, NetState, QUEUE_SIZE, Side};
pub use pair::Pair;
