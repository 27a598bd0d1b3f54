#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod error;
mod forward;
mod ioctl;
mod open;
mod spec;
mod tap;
mod thread;
mod user;
mod vectors;
mod vhost;

// Crates whose types are in this one's interface.
pub use nerite_user_net;
pub use nerite_virtio_net;

pub use error::{Error, TapRefusal};
pub use forward::{Forward, ForwardError, Protocol};
pub use open::{Connection, open};
pub use spec::{Link, Spec, SpecError};
pub use tap::Tap;
pub use user::User;
pub use vhost::Vhost;
