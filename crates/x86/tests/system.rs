//! System behaviour: exceptions, interrupts, modes, privilege.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "addresses of small memory")]

#[path = "system/counting.rs"]
mod counting;
#[path = "system/events.rs"]
mod events;
#[path = "system/exceptions.rs"]
mod exceptions;
#[path = "system/exits.rs"]
mod exits;
#[path = "machine/mod.rs"]
mod machine;
#[path = "system/modes.rs"]
mod modes;
#[path = "system/paging.rs"]
mod paging;
#[path = "system/self_modifying.rs"]
mod self_modifying;
#[path = "system/transfers.rs"]
mod transfers;
