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

pub use hypervisor::Software;
pub use virtual_clock::IdleTime;
