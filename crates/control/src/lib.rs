//! Pausing, asking and ending a running machine through a socket: **lines of JSON, a request and
//! its answer.**
//!
//! [`Server`] is the machine's side: one thread that answers all who connect. [`Client`] is the
//! operator's. What travels between them is [`protocol`]; its schema is in `docs/control.md`.
//! Whatever a client sends, the guest runs on: what is no request gets an error, what is too long
//! ends the connection, and who does not take its answer is dropped.
//!
//! ```no_run
//! use nerite_control::{Client, protocol::Command};
//!
//! let mut client = Client::connect("/run/user/1000/guest.sock".as_ref())?;
//! client.command(Command::Pause, None)?;
//! println!("{}", client.command(Command::Regs, Some(0))?);
//! client.command(Command::Resume, None)?;
//! # Ok::<(), nerite_control::ClientError>(())
//! ```

#![forbid(unsafe_code)]
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

mod answers;
mod client;
mod connection;
pub mod protocol;
mod registers;
mod server;
pub mod statistics;

pub use answers::Desk;
pub use client::{Client, ClientError};
pub use connection::Connection;
pub use server::{Server, ServerError, Serving};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
