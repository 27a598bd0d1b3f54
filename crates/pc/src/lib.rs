#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod builder;
mod dispatch;
mod generation;
mod load;
mod plan;
mod platform;
mod settings;
mod state;

// Crates whose types are in this one's interface.
pub use nerite_loader;
pub use nerite_memory;
pub use nerite_platform;

pub use builder::Builder;
pub use load::InitFile;
pub use settings::{DEFAULT_MEMORY, Settings};

use nerite_platform::Error;
