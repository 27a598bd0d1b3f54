//! Prints as many single bytes as its argument says, in lines of 64, and says how long a byte took.

#![no_std]
#![no_main]

use runtime::prelude::*;

runtime::kernel!(v1, main);

fn main() {
    let args = boot::args();
    let count: u64 =
        args.first().and_then(|arg| arg.parse().ok()).expect("wants a number of bytes");
    let start = cpu::tsc();
    for byte in 1..=count {
        runtime::v1().write_byte(if byte % 64 == 0 { b'\n' } else { b'.' });
    }
    let cycles = u128::from(cpu::tsc() - start);
    runtime::v1().write_byte(b'\n');
    println!(
        "byte: {} ns",
        cycles * 1_000_000 / u128::from(boot::tsc_khz()) / u128::from(count.max(1))
    );
}
