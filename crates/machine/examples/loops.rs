//! Runs a guest in the run loop as it is in a machine, or in one that does nothing else but run it:
//! `cargo run -p nerite-machine --features exercise --example loops -- full|bare IMAGE [ARGS]...`
//!
//! `cargo xtask bench loop` compares the two.

use std::process::ExitCode;

use nerite_machine::Config;
use nerite_machine::config::GuestConfig;
use nerite_machine::exercise::{Loop, run_loop};

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows its result")]
fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let kind = match words.next().as_deref() {
        Some("full") => Loop::Full,
        Some("bare") => Loop::Bare,
        _ => {
            println!("usage: loops full|bare IMAGE [ARGS]...");
            return ExitCode::SUCCESS;
        }
    };
    let image = words.next().unwrap_or_default().into();
    let guest = GuestConfig { app_args: words.collect(), ..GuestConfig::default() };
    match run_loop(&Config { image, guest, ..Config::default() }, kind) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
