//! Prints as many lines of 64 bytes as its argument says, one call each, and says how long a line
//! took.

#![no_std]
#![no_main]

use runtime::prelude::*;

runtime::kernel!(v2, main);

fn main() {
    let args = boot::args();
    let count: u64 =
        args.first().and_then(|arg| arg.parse().ok()).expect("wants a number of lines");
    let start = cpu::tsc();
    for line in 0..count {
        println!("line {line:07}: 0123456789 0123456789 0123456789 0123456789 01234");
    }
    let cycles = u128::from(cpu::tsc() - start);
    println!(
        "line: {} ns",
        cycles * 1_000_000 / u128::from(boot::tsc_khz()) / u128::from(count.max(1))
    );
}
