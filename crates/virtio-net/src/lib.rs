//! The virtio network card (virtio 1.2, 5.1): **frames go between guest memory and a [`Backend`] on
//! one thread a queue pair, and no vCPU takes part.**
//!
//! * [`Net`] is the device: give it to [`nerite_virtio::VirtioPci`].
//! * A [`Backend`] sends and receives frames of one queue pair right from and into guest memory. It
//!   does not know what a queue is. Tap devices and others are in the crate nerite-net.
//! * An [`Engine`] works on queues by itself in place of backends, such as the host's kernel with
//!   vhost.
//! * [`Counters`] count packets, bytes, notifications, interrupts and drops of each queue.
//!
//! What a driver does wrong in a queue sets DEVICE_NEEDS_RESET; a frame that cannot be sent is
//! dropped and counted.

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

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
