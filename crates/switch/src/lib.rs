#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod coalesced;
mod hypervisor;
mod interrupts;
mod kick;
mod pair;
mod switch;
mod vcpu;
mod vm;

// Crates whose types are in this one's interface.
pub use nerite_hypervisor;
pub use nerite_memory;

pub use hypervisor::Switchable;
pub use pair::Side;
pub use switch::Switch;

#[cfg(test)]
mod tests;
