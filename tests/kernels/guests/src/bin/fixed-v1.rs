//! An image linked for a fixed address (ET_EXEC), interface version 1, as the old C toolchain makes
//! them.

#![no_std]
#![no_main]

#[path = "../fixed.rs"]
mod fixed;

runtime::kernel!(v1, fixed::main);
