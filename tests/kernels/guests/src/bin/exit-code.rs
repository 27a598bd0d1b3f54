//! Exits with the code that its argument says, interface version 2.

#![no_std]
#![no_main]

use runtime::prelude::*;

runtime::kernel!(v2, main);

fn main() {
    let args = boot::args();
    let code = args.first().and_then(|arg| arg.parse().ok());
    let Some(code) = code else { panic!("wants an exit code as its argument, got {args:?}") };
    println!("leaving with {code}");
    check_eq!(args.len(), 1, "number of arguments");
    if runtime::check::report() {
        runtime::exit(code);
    }
    // None of the codes that the suite asks for.
    runtime::exit(99)
}
