//! The `nerite-oci` program. Everything is in the library `nerite_oci`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(nerite_oci::main(std::env::args_os()))
}
