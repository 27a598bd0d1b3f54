//! What a virtual network card is connected to: **one line of text says it, [`open`] opens it, and
//! the card knows none of it.**
//!
//! * A [`Tap`] of the host, created if that is allowed, with segmentation and checksums left to the
//!   host's kernel and one queue for each queue pair. Frames go between it and guest memory without
//!   a copy.
//! * The same with [`Vhost`]: the host's kernel works on the queues.
//! * [`User`] mode, for those who may not make a tap: connections of the guest become connections
//!   of a process, passt.
//! * A descriptor of a tap that whoever started this process has opened.
//!
//! ```
//! use nerite_net::{Spec, Link};
//!
//! let spec: Spec = "tap=tap0,queues=2,mtu=9000".parse()?;
//! assert!(matches!(spec.link, Link::Tap { ref name, .. } if name == "tap0"));
//! let spec: Spec = "user,hostfwd=tcp:8080:80".parse()?;
//! assert_eq!(spec.to_string(), "user,hostfwd=tcp:8080:80");
//! # Ok::<(), nerite_net::SpecError>(())
//! ```
//!
//! The `unsafe` here is in three places: the ioctls of taps, vectored reads and writes that go to
//! guest memory, and a thread's scheduling.

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

pub use error::Error;
pub use forward::{Forward, Protocol};
pub use open::{Connection, open};
pub use spec::{Link, Spec, SpecError};
pub use tap::Tap;
pub use user::User;
pub use vhost::Vhost;

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
