#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod board;
mod convert;
mod counters;
mod error;
mod exits;
mod hypervisor;
mod interrupts;
mod kick;
mod lapic;
mod pages;
mod parts;
mod perf;
pub mod probe;
mod registers;
mod ring;
mod settle;
mod state;
mod system;
mod timer;
mod translations;
pub mod tsc;
mod vcpu;
mod vm;

// Crates whose types are in this one's interface.
pub use nerite_arch;
pub use nerite_hypervisor;
pub use nerite_memory;

pub use error::OpenError;
pub use interrupts::KvmInterrupts;
pub use kick::kick_signal;
pub use perf::GuestCounter;
pub use system::System;
pub use vcpu::KvmVcpu;
pub use vm::KvmVm;
