//! KVM as an engine of Nerite's [`Vcpu`](nerite_vcpu::Vcpu): **a system, a VM with its RAM, and vCPUs that can be kicked
//! without a race.**
//!
//! ```no_run
//! use std::sync::Arc;
//! use nerite_kvm::{Options, System, Vm};
//! # fn ram() -> Arc<nerite_memory::GuestRam> { unimplemented!() }
//! let system = System::open()?;
//! let vm = Vm::new(&system, ram(), &Options::default())?;
//! # Ok::<(), nerite_kvm::Error>(())
//! ```
//!
//! All the `unsafe` that KVM needs is in this crate. It makes a signal handler of its own for [`kick_signal`], the first
//! real-time signal, when the first vCPU is created.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod convert;
mod counters;
mod error;
mod exits;
mod interrupts;
mod kick;
mod pages;
mod pc;
mod perf;
pub mod probe;
mod registers;
mod ring;
mod system;
mod timer;
mod vcpu;
mod vm;

pub use error::Error;
pub use interrupts::{Interrupts, MessageId};
pub use kick::kick_signal;
pub use perf::{Counted, GuestCounter};
pub use system::System;
pub use timer::KickTimer;
pub use vcpu::KvmVcpu;
pub use vm::{BareVm, Irqchip, Options, Vm};

/// The README's example, kept true by running it.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
