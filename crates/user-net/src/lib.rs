#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod config;
mod dhcp;
mod error;
mod ip;
mod link;
mod sources;
mod stack;
mod tcp;
mod udp;

pub use config::{
    Config, Forward, GATEWAY, GATEWAY_MAC, GUEST, MAX_MTU, PREFIX, Protocol, name_server,
};
pub use error::Error;
pub use stack::{SOCKETS, Stack};
