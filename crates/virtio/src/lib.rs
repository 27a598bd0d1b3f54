#![doc = include_str!("../README.md")]
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
pub use nerite_log_budget::{Causes, LogBudget};
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
