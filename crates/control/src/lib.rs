#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod client;
mod descriptors;
pub mod protocol;

#[cfg(feature = "server")]
mod connection;
#[cfg(feature = "server")]
mod registers;
#[cfg(feature = "server")]
mod request_handler;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
pub mod statistics;

// Crates whose types are in this one's interface.
#[cfg(feature = "server")]
pub use nerite_private_socket;
#[cfg(feature = "server")]
pub use nerite_service;

pub use client::{Client, ClientError};

#[cfg(feature = "server")]
pub use connection::Connection;
#[cfg(feature = "server")]
pub use request_handler::RequestHandler;
#[cfg(feature = "server")]
pub use server::{Server, ServerError, Serving};
