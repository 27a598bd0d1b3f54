//! Panics, which ends the machine with -1.

#![no_std]
#![no_main]

use runtime::prelude::*;

runtime::kernel!(v2, main);

fn main() {
    println!("about to panic");
    let empty: Vec<u8> = vec![];
    println!("{}", empty[core::hint::black_box(0)]);
}
