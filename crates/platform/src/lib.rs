#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod budget;
mod end;
mod error;
mod identity;
mod own;
mod platform;
mod rate;
mod state;
mod stop;

// Crates whose types are in this one's interface.
pub use nerite_arch;
pub use nerite_bus;
pub use nerite_devices;
pub use nerite_hypervisor;
pub use nerite_inspect;
pub use nerite_loader;
pub use nerite_memory;
pub use nerite_pci;
pub use nerite_saved;
pub use nerite_vcpu;

pub use budget::LogBudget;
pub use end::{End, Stop, handle_common, read_bus};
pub use error::{Error, ErrorKind, MAX_CPUS, MIN_MEMORY};
pub use identity::Identity;
pub use nerite_devices::pc::ResetKind;
pub use own::OwnDevices;
pub use platform::{
    Builder, DeviceTimer, Environment, ExitHandler, InputLine, KernelPlace, OutputClock, Platform,
    check_size,
};
pub use rate::Rate;
pub use state::PlatformState;
pub use stop::StopToken;
