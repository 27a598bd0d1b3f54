#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod blob;
mod error;
mod hermit;
mod layers;
mod layout;
mod manifest;
pub mod pack;
pub mod process;
mod reference;
mod store;
mod text;
mod tree;

// Crates whose types are in this one's interface.
pub use nerite_loader;
pub use oci_spec;

pub use error::{Error, LayerError, PackError};
pub use hermit::HermitImage;
pub use layers::Rootfs;
pub use layout::Layout;
pub use manifest::Manifest;
pub use pack::{Pack, Packed};
pub use process::Process;
pub use reference::{Kind, Reference, ReferenceError};
