#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod clock;
mod coalesced;
mod controller;
mod cpuid;
mod doorbells;
mod hypervisor;
mod msr;
mod shared;
mod signal;
mod timers;
mod vcpu;
mod virtual_clock;
mod vm;

// Crates whose types are in this one's interface.
pub use nerite_arch;
pub use nerite_hypervisor;
pub use nerite_memory;

pub use hypervisor::Software;
pub use virtual_clock::IdleTime;
