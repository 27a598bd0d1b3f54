//! Every processor knows its number, and atomic operations are atomic; interface version 1.

#![no_std]
#![no_main]

#[path = "../smp.rs"]
mod smp;

runtime::kernel!(v1, smp::main);
