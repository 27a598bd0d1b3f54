//! Console input of interface version 2, until its end. Argument: `byte` (SerialReadByte), `buffer`
//! (SerialReadBuffer) or `file` (FileRead of descriptor 0).

#![no_std]
#![no_main]

use runtime::escape::Escaped;
use runtime::hypercall::STDIN;
use runtime::prelude::*;

runtime::kernel!(v2, main);

fn main() {
    let calls = runtime::v2();
    let args = boot::args();
    let kind = args.first().map_or("", String::as_str);
    let mut all = vec![];
    // A small buffer, so that more than one call is needed.
    let mut part = [0x7e; 24];
    loop {
        let count = match kind {
            "byte" => calls.read_byte().map_or(0, |byte| {
                part[0] = byte;
                1
            }),
            "buffer" => calls.read(&mut part[4..20]),
            "file" => match calls.read_fd(STDIN, &mut part[4..20]) {
                Ok(count) => count,
                Err(errno) => panic!("reading descriptor 0 failed with error {errno}"),
            },
            other => panic!("{other:?} is no kind of input"),
        };
        if count == 0 {
            break;
        }
        let start = if kind == "byte" { 0 } else { 4 };
        all.extend_from_slice(&part[start..start + count]);
        if kind != "byte" {
            check!(
                part[..4].iter().chain(&part[4 + count..]).all(|&b| b == 0x7e),
                "bytes next to the input"
            );
            part.fill(0x7e);
        }
    }
    println!("input {}", Escaped(&all));
    println!("{} bytes", all.len());
    // The end stays the end.
    check_eq!(calls.read(&mut part), 0, "bytes after the end");
    check_eq!(calls.read_byte(), None, "byte after the end");
    check_eq!(calls.read_fd(STDIN, &mut part), Ok(0), "bytes of descriptor 0 after the end");
    check_eq!(calls.read(&mut []), 0, "bytes into an empty buffer");
}
