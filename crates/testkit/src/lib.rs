//! Support for unit tests of several crates: images, page tables, and a log that can be read.
//!
//! Only for tests: everything here panics when it fails.

#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "support for tests, which fail by panicking"
)]

pub mod guest;
pub mod image;
pub mod log;
mod skip;
pub mod tables;
pub mod vm;

pub use skip::skip;
