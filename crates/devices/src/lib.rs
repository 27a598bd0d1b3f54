//! Small device models that know no hypervisor: **each is a value that can be built, driven and
//! tested alone.**
//!
//! * [`Console`]: the guest's output, line by line and never late, and its input, which a stop can
//!   interrupt.
//! * [`pc`]: a serial port, clock, power management and what else a PC has.
//! * [`TimeSource`]: the time that a clock shows, the host's or the machine's own.
//! * [`RawMode`], [`Escape`]: a terminal whose every key but one goes to the guest.

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

/// The README's example, kept true by running it.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
