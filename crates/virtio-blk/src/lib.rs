//! The virtio block device (virtio 1.2, 5.2): **sectors go between guest memory and a [`Disk`] on
//! one thread, and no vCPU waits for them.**
//!
//! * [`Blk`] is the device: give it to [`nerite_virtio::VirtioPci`].
//! * [`RawFile`] is a file or block device of the host as a disk, byte for byte. [`Disk`] is for
//!   others.
//! * [`Spec`] says which file and how, as `PATH[,ro][,serial=TEXT]`.
//! * [`Totals`] say what it has done.
//!
//! What the host cannot do (a bad sector, a file that has become shorter, a full file system) and
//! what a driver must not ask for (sectors beyond the end, a write to what is read-only) reaches
//! the guest as an I/O error. A request without room for an answer sets DEVICE_NEEDS_RESET.
//!
//! The `unsafe` here is in one place: vectored reads and writes that go to guest memory.

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

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
