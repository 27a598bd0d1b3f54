//! Console input of interface version 1, until its end: FileRead of descriptor 0.

#![no_std]
#![no_main]

use runtime::escape::Escaped;
use runtime::hypercall::STDIN;
use runtime::prelude::*;

runtime::kernel!(v1, main);

fn main() {
    let calls = runtime::v1();
    let mut all = vec![];
    loop {
        let mut part = [0x7e; 24];
        match calls.read_fd(STDIN, &mut part[4..20]) {
            Ok(0) => break,
            Ok(count) => {
                all.extend_from_slice(&part[4..4 + count]);
                check!(
                    part[..4].iter().chain(&part[4 + count..]).all(|&b| b == 0x7e),
                    "bytes next to the input"
                );
            }
            Err(errno) => panic!("reading descriptor 0 failed with error {errno}"),
        }
    }
    println!("input {}", Escaped(&all));
    println!("{} bytes", all.len());
    check_eq!(calls.read_fd(STDIN, &mut [0; 4]), Ok(0), "bytes after the end");
}
