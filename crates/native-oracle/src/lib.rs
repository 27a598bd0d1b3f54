#![doc = include_str!("../README.md")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "support for tests, which fail by panicking"
)]
#![allow(clippy::cast_possible_truncation, reason = "addresses and small numbers, on x86-64 alone")]

mod case;
mod child;
mod enter;
pub mod form;
mod random;

pub use case::{Case, MEMORY_ADDRESS, MEMORY_SIZE};
pub use child::execute;
pub use enter::vector_components;
pub use random::Random;
