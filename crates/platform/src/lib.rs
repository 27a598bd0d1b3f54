#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod budget;
mod end;
mod error;
mod identity;
mod platform;
mod rate;
mod state;
mod stop;

pub use budget::LogBudget;
pub use end::{End, Stop, handle_common, read_bus};
pub use error::{Error, ErrorKind, MAX_CPUS, MIN_MEMORY};
pub use identity::Identity;
pub use nerite_devices::pc::ResetKind;
pub use platform::{
    Builder, Environment, ExitHandler, InputLine, KernelPlace, OutputClock, Platform, check_size,
};
pub use rate::Rate;
pub use state::PlatformState;
pub use stop::StopToken;
