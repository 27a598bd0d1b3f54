//! Prints its arguments and environment (interface version 1: Cmdsize and Cmdval), one a line,
//! escaped.

#![no_std]
#![no_main]

use runtime::escape::Escaped;
use runtime::prelude::*;

runtime::kernel!(v1, main);

/// The string in a buffer whose length the VMM told: it ends with the buffer's only zero.
fn text(buffer: &[u8]) -> &[u8] {
    let end = buffer.iter().position(|&byte| byte == 0).unwrap_or(buffer.len());
    check_eq!(end + 1, buffer.len(), "length of {} with its zero", Escaped(buffer));
    &buffer[..end]
}

fn main() {
    let (argv, mut envp) = boot::command_v1();
    for (index, argument) in argv.iter().enumerate() {
        let argument = text(argument);
        if index == 0 {
            // The kernel's path, which depends on the caller: only its last part is printed.
            let name = argument.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            println!("name {}", Escaped(name));
        } else {
            println!("argument {} {}", index - 1, Escaped(argument));
        }
    }
    // Kernels before 0.10, of which this is one, need their list filled up with empty strings at
    // the end.
    let used = envp.iter().position(|entry| text(entry).is_empty()).unwrap_or(envp.len());
    check!(
        envp[used..].iter().all(|entry| text(entry).is_empty()),
        "an empty string among the environment"
    );
    envp.truncate(used);
    envp.sort();
    for entry in &envp {
        let entry = text(entry);
        match entry.iter().position(|&byte| byte == b'=') {
            Some(at) => {
                println!("environment {} {}", Escaped(&entry[..at]), Escaped(&entry[at + 1..]))
            }
            None => check!(false, "an environment entry without '=': {}", Escaped(entry)),
        }
    }
}
