#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod connection;
mod device;
#[cfg(feature = "exercise")]
pub mod exercise;
mod limits;
mod line;
mod listener;
mod live;
mod packet;
mod ports;
mod source;
mod spec;
mod state;
mod table;

// Crates whose types are in this one's interface.
pub use nerite_private_socket;
pub use nerite_virtio;

pub use connection::BUFFER;
pub use device::Vsock;
pub use limits::{Limits, Totals};
pub use listener::Listener;
pub use packet::{HEADER, HOST_CID, Header, STREAM, op, shutdown};
pub use spec::{Cid, MAX_PATH, Spec, SpecError};
pub use state::VsockState;
