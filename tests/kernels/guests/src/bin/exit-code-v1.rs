//! Exits with the code that its argument says, interface version 1.

#![no_std]
#![no_main]

use runtime::prelude::*;

runtime::kernel!(v1, main);

fn main() {
    let (argv, _) = boot::command_v1();
    let text = argv.last().and_then(|arg| arg.strip_suffix(b"\0")).unwrap_or_default();
    let code = core::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    let Some(code) = code else { panic!("wants an exit code as its last argument, got {argv:?}") };
    println!("leaving with {code}");
    check_eq!(argv.len(), 2, "number of arguments");
    if runtime::check::report() {
        runtime::exit(code);
    }
    // None of the codes that the suite asks for.
    runtime::exit(99)
}
