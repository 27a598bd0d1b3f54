#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]
#![allow(
    clippy::cast_possible_truncation,
    reason = "registers are cut to the width of operands all the time"
)]
#![allow(clippy::inline_always, reason = "handlers are made of these")]

mod access;
mod block;
mod cache;
mod code;
mod control;
mod core;
mod count;
mod cpu;
mod cpuid;
mod debug;
mod decode;
mod events;
mod exception;
mod exit;
mod fault;
mod features;
mod fetch;
mod flags;
mod int;
mod interrupt;
mod iret;
mod machine;
mod msr;
mod msrs;
mod op;
mod ops;
mod phys;
mod platform;
mod registers;
mod run;
mod segment;
mod stack;
mod syscall;
mod tlb;
mod transfer;
mod vector;
mod walk;

// Crates whose types are in this one's interface.
pub use nerite_arch;
pub use nerite_memory;

pub use code::CodePages;
pub use count::Executions;
pub use cpu::{Config, Cpu, DebugRegs, Events, Kicker};
pub use exit::{Entry, Exit};
pub use features::supported_cpuid;
pub use machine::MSRS;
pub use platform::{Deterministic, Memory, Platform};
