//! Does nothing: what is left is what every guest costs.

#![no_std]
#![no_main]

runtime::kernel!(v2, main);

const fn main() {}
