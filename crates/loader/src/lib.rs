#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod archive;
mod bytes;
mod config;
mod elf;
mod entry;
mod error;
mod guest;
mod guest_inspect;
mod image;
mod image_source;
mod inspect;
mod limits;
mod pc;
mod protocol;
mod source;
mod symbols;
mod tar_reader;
#[cfg(feature = "testing")]
pub mod testing;
pub mod text;

// Crates whose types are in this one's interface.
pub use vm_memory;

pub use archive::Archive;
pub use config::ImageConfig;
pub use elf::{
    Interface, Kernel, KernelVersion, LoadedKernel, RelocationCounts, Segment, SegmentFlags, Tls,
};
pub use entry::{Entry, EntryKind};
pub use error::Error;
pub use guest::GuestImage;
pub use guest_inspect::GuestInspection;
pub use image::{Format, Image};
pub use image_source::ImageSource;
pub use inspect::Inspection;
pub use limits::Limits;
pub use pc::{BzImage, Multiboot, PhysicalSegment, Pvh, SegmentedKernel};
pub use protocol::{Protocol, UnknownProtocol};
pub use symbols::{Location, Symbols};
