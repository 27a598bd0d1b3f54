//! An image linked for a fixed address (ET_EXEC), interface version 2.

#![no_std]
#![no_main]

#[path = "../fixed.rs"]
mod fixed;

runtime::kernel!(v2, fixed::main);
