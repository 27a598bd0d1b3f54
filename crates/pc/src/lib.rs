#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod builder;
mod dispatch;
mod load;
mod plan;
mod platform;
mod settings;
mod state;

pub use builder::Builder;
pub use load::InitFile;
pub use settings::{DEFAULT_MEMORY, Settings};

use nerite_platform::Error;
