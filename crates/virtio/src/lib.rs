//! Virtio devices behind PCI (virtio 1.2): **a device is what its queues and its configuration
//! mean; everything else is here once**, for all of them.
//!
//! * [`Common`] is the transport's state machine (3.1 and 4.1.4.3) as plain data: status handshake,
//!   feature words, queue registers. Once the driver is ready, the queues are frozen in the type.
//! * [`VirtioPci`] is a PCI function with that in it, with interrupts ([`Notifier`]) and doorbells
//!   ([`Doorbells`]) that need no vCPU in between.
//! * [`Queue`] is a split virtqueue, on the crate virtio-queue, that takes nothing a driver must
//!   not give: a malformed [`Chain`] is an error, not a shorter chain.
//! * [`VirtioDevice`] is what a device implements, and [`Worker`] the thread of one that needs no
//!   more than that.
//! * [`VirtioPci::save`] and [`VirtioPci::restore`] turn a paused function with its device into
//!   plain data, [`VirtioPciState`], and back.
//! * `fake`, with the feature of that name, is a driver to test devices with, and to break the
//!   rules with.
//!
//! A driver's mistakes never end or stop the host: the device needs a reset (2.1.2), and after one
//! it works again.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod chain;
mod common;
mod device;
#[cfg(feature = "fake")]
pub mod fake;
mod notifier;
mod pci;
mod queue;
mod worker;

// Crates whose types are in this one's interface.
pub use nerite_memory;
pub use nerite_pci;

pub use chain::{Chain, ChainError, Ring, Segment, pieces};
pub use common::{
    Action, Common, CommonState, NO_VECTOR, QueueConfig, QueueFault, QueueRegistersState,
    QueueState, common_cfg, status,
};
pub use device::{Activation, DeviceState, Kind, StartError, VirtioDevice, config_bytes};
pub use nerite_log_budget::LogBudget;
pub use nerite_pci::Event;
pub use nerite_saved::{RestoreError, SaveError};
pub use notifier::{Notifier, NotifierState};
pub use pci::{
    BAR_SIZE, DoorbellError, Doorbells, NoDoorbells, VirtioPci, VirtioPciState, Wiring, region,
};
pub use queue::{Queue, QueueError};
pub use worker::{Enter, Worker, lock};

/// Feature bits that are the transport's, not a device's (virtio 1.2, 6).
pub mod feature {
    /// Descriptors may point to tables of descriptors (2.7.5.3).
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Each side says which ring index the other is to notify it at (2.7.7 and 2.7.10).
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device follows virtio 1.0 or later. No driver can do without it here.
    pub const VERSION_1: u64 = 1 << 32;
}

/// The example of the README.
#[cfg(all(doctest, feature = "fake"))]
#[doc = include_str!("../README.md")]
struct Readme;
