//! Boots a Hermit image and says how it ended: `cargo run -p nerite-machine --example run -- IMAGE
//! [ARGUMENTS]`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::env;
use std::process::ExitCode;

use nerite_machine::config::GuestConfig;
use nerite_machine::{Config, Error, ErrorKind, Machine, Outcome};

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let Some(image) = arguments.next() else {
        println!(
            "usage: run IMAGE [ARGUMENTS]\nIMAGE is a Hermit application: an ELF file or a gzip'd tar."
        );
        return ExitCode::SUCCESS;
    };
    let config = Config {
        image: image.into(),
        guest: GuestConfig { app_args: arguments.collect(), ..GuestConfig::default() },
        ..Config::default()
    };
    match run(&config) {
        Ok(outcome) => {
            eprintln!("{outcome}");
            match outcome {
                Outcome::Exited(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
                Outcome::PoweredOff => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            let whose = match error.kind() {
                ErrorKind::Config => "what was asked for",
                ErrorKind::Image => "the image",
                ErrorKind::Host => "this host",
            };
            eprintln!("{error} (this is about {whose})");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> Result<Outcome, Error> {
    Machine::new(config)?.start()?.wait(None)
}
