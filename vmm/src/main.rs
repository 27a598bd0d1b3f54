//! The `vmm` program. Everything is in the library `nerite_vmm`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    nerite_vmm::program::main(std::env::args_os())
}
