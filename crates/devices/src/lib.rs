#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod console;
pub mod pc;
mod terminal;
mod time;

// Crates whose types are in this one's interface.
pub use nerite_bus;
pub use nerite_event;
pub use nerite_saved;

pub use console::{Console, ConsoleState, Input, Sink, Write};
pub use terminal::{Escape, RawMode, Restore};
pub use time::{HostTime, TimeSource, VirtualTime};
