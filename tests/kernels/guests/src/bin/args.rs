//! Prints its arguments and environment (interface version 2: the device tree's bootargs), one a
//! line, escaped.

#![no_std]
#![no_main]

use runtime::escape::Escaped;
use runtime::prelude::*;

runtime::kernel!(v2, main);

fn main() {
    let mut command = boot::command();
    for word in &command.kernel_args {
        println!("kernel {}", Escaped(word.as_bytes()));
    }
    for (index, word) in command.args.iter().enumerate() {
        println!("argument {index} {}", Escaped(word.as_bytes()));
    }
    command.env.sort();
    for (key, value) in &command.env {
        println!("environment {} {}", Escaped(key.as_bytes()), Escaped(value.as_bytes()));
    }
    // The arguments must hold together, whatever they are.
    let compatible = boot::fdt().root().compatible().first();
    check_eq!(compatible, "hermit,uhyve", "compatible of the device tree's root");
}
