#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod backing;
mod error;
mod extents;
pub mod layout;
mod mapping;
mod page;
mod page_map;
mod ram;
mod region;
#[cfg(test)]
mod test_file;

pub use backing::{Advised, Backing};
pub use error::{AccessError, CStrError, Error};
pub use layout::{AddressLimit, Layout, Request};
pub use mapping::MappedRegion;
pub use page::{Page, Pages, Word};
pub use page_map::PageMap;
pub use ram::{Contents, GuestRam, Mapping, Memory, Reverted, WriteObserver};
pub use region::{GAP_END, GAP_START, LARGE_PAGE, PAGE, Region};
// The crates whose types appear in `GuestRam`'s interface, so that users need not match their
// versions by hand.
pub use vm_memory;
pub use zerocopy;
