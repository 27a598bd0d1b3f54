//! Guest RAM for a KVM virtual machine, and where things lie in it.
//!
//! The one idea: **guest memory is shared with an adversary that runs at the same time**, so
//! nothing here ever hands out a reference into it. [`GuestRam`] copies bytes in and out through
//! volatile accesses, checks the whole range of an access before it touches the first byte, and
//! answers a bad address with an [`AccessError`], never with a panic.
//!
//! [`layout`] decides, as a pure function of sizes and one random number, where RAM, the kernel and
//! the structures a Hermit guest boots from lie in guest-physical space.
//!
//! ```
//! use nerite_memory::{Backing, GuestRam, Region};
//!
//! let region = Region { start: 0x1_0000_0000, size: 2 << 20 };
//! let ram = GuestRam::new(&[region], &Backing::default())?;
//! ram.write(0x1_0000_1000, b"hello\0")?;
//! assert_eq!(ram.read_cstr(0x1_0000_1000, 64)?, b"hello");
//! assert!(ram.write(0x1_001f_ffff, b"ab").is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
pub mod layout;
mod mapping;
mod page;
mod ram;
mod region;

pub use error::{AccessError, CStrError, Error};
pub use layout::{AddressLimit, Layout, Request};
pub use mapping::MappedRegion;
pub use page::{Page, Pages, Word};
pub use ram::{Backing, GuestRam, Mapping, Memory, WriteObserver};
pub use region::{GAP_END, GAP_START, LARGE_PAGE, PAGE, Region};
// The crate whose types appear in `GuestRam`'s interface, so that users need not match its version
// by hand.
pub use vm_memory;

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
