//! Composes Nerite's crates into a runnable virtual machine from one Config: the embedding API.

pub mod config;
