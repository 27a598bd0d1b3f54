//! A runnable virtual machine from one [`Config`]: **the embedding API of Nerite.**
//!
//! [`Machine::new`] reads the image and builds everything, [`Machine::start`] lets the vCPUs run,
//! and [`Running::wait`] gives the [`Outcome`]. An [`Embedding`] has what the program brings
//! besides the configuration: an image in memory, input and output, devices. The crates below are
//! composed here, and only here.
//!
//! ```no_run
//! use nerite_machine::{Config, Error, Machine, Outcome};
//!
//! fn main() -> Result<(), Error> {
//!     let config = Config { image: "hello_world".into(), ..Config::default() };
//!     match Machine::new(&config)?.start()?.wait(None)? {
//!         Outcome::Exited(code) => std::process::exit(code),
//!         other => eprintln!("{other}"),
//!     }
//!     Ok(())
//! }
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod accelerator;
mod applicable;
mod balloon;
pub mod config;
mod core_file;
mod counting;
pub mod debug;
mod devices;
mod embedding;
mod ends;
mod error;
#[cfg(feature = "exercise")]
pub mod exercise;
mod functions;
mod halts;
mod handle;
mod identity;
mod image_file;
mod input;
mod late_image;
mod machine;
mod moment;
mod msr;
mod network;
mod opened;
mod outcome;
mod report;
mod reset;
mod restart;
mod running;
mod saver;
mod services;
mod setting;
mod setup;
mod snapshot;
mod switching;
mod timeline;
#[cfg(test)]
mod tiny_kernel;
mod trigger;
mod user_irqchip;
mod vcpu_thread;
mod vsock;
mod wires;

// Crates whose types are in this one's interface.
pub use nerite_arch;
pub use nerite_bus;
pub use nerite_event;
pub use nerite_hypervisor;
pub use nerite_memory;
pub use nerite_platform;
pub use nerite_sandbox;
pub use nerite_saved;
pub use nerite_service;
pub use nerite_snapshot;
pub use nerite_vcpu;
pub use nerite_virtio;
pub use nerite_virtio_balloon;
pub use nerite_virtio_blk;
pub use nerite_virtio_console;
pub use nerite_virtio_net;
pub use nerite_virtio_vsock;

pub use accelerator::{Processors, processors};
pub use balloon::BalloonError;
pub use config::Config;
pub use counting::ProcessorCounts;
pub use devices::{Devices, DevicesState};
pub use embedding::{Embedding, Hypercall, MAX_OWN_VIRTIO};
pub use ends::HeldEnd;
pub use error::{Error, ErrorKind};
pub use functions::{FunctionCount, InstructionCounts};
pub use handle::{Handle, HandleError, Pause};
pub use identity::IdentityError;
pub use image_file::open_image;
pub use late_image::LateImage;
pub use machine::Machine;
pub use nerite_inspect::{CrashReport, Frame, VcpuState};
pub use nerite_memory::Reverted;
pub use nerite_platform::Identity;
pub use nerite_sandbox::ThreadKind;
pub use nerite_service::{BalloonReport, DeviceCounters, SnapshotReport, SwitchReport};
pub use nerite_vcpu::{Held, RunState};
pub use network::{Network, NetworkState};
pub use opened::Opened;
pub use outcome::Outcome;
pub use report::{ByName, Report, hypercall_name, hypercalls};
pub use reset::{ResetError, ResetPoint};
pub use running::{Running, Teardown};
pub use setting::Setting;
pub use setup::{SavedMount, Setup};
pub use snapshot::{MachineState, SnapshotError};
pub use switching::SwitchError;
pub use timeline::{Step, Timeline};

/// The README's example, kept true by running it.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
