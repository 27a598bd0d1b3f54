#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod core_file;
mod crash;
mod memory;
mod operands;

// Crates whose types are in this one's interface.
pub use nerite_arch;
pub use nerite_hypervisor;
pub use nerite_loader;
pub use nerite_memory;

pub use core_file::Core;
pub use crash::{CrashReport, Frame, Reason, Unwinder, VcpuState};
pub use memory::{read_virtual, translate, write_virtual};
pub use operands::CodeReader;
