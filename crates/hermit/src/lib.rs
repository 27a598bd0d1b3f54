#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod boot;
mod builder;
mod coalesced;
mod dispatch;
#[cfg(any(test, feature = "exercise"))]
pub mod exercise;
mod files;
mod hypercalls;
mod identity;
mod lines;
mod plan;
mod settings;
mod state;
#[cfg(test)]
mod testing;

// Crates whose types are in this one's interface.
pub use nerite_hostfs;
pub use nerite_loader;
pub use nerite_memory;
pub use nerite_platform;

pub use builder::Builder;
pub use settings::{DEFAULT_MEMORY, Settings};

use nerite_platform::Error;
