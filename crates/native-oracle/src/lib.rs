#![doc = include_str!("../README.md")]

mod case;
mod child;
mod enter;
pub mod form;
mod random;

pub use case::{Case, MEMORY_ADDRESS, MEMORY_SIZE};
pub use child::execute;
pub use enter::vector_components;
pub use random::Random;
