//! Support for unit tests of several crates: images, page tables, and a log that can be read.
//!
//! Only for tests: everything here panics when it fails.

#![forbid(unsafe_code)]

pub mod image;
pub mod log;
pub mod tables;
pub mod vm;
