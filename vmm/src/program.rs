//! The program: from the command line to an exit code.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};

use clap::Parser as _;
use clap::error::ErrorKind;
use nerite_kvm::probe::HostKvm;

use crate::cli::{Action, Cli};
use crate::error::Error;
use crate::{clones, ctl, exit_code, inspect, logging, output, pack, run, stderr, tip};

/// Executes a command line, the first word of which is the program's name.
///
/// Errors are reported on standard error. The exit code is for `main` to return; see [`exit_code`].
#[must_use]
pub fn main(words: impl IntoIterator<Item = OsString>) -> u8 {
    let words: Vec<OsString> = words.into_iter().collect();
    let done = match Cli::try_parse_from(&words) {
        Ok(cli) => {
            let log = cli.log_file.as_deref().map_or(Ok(()), logging::redirect);
            logging::init(cli.verbose, cli.log_time);
            log.and_then(|()| execute(cli.action))
        }
        Err(mut error) => {
            tip::add(&mut error, &words);
            print_answer(&error)
        }
    };
    let code = done.unwrap_or_else(|error| {
        output::report(&error);
        error.exit_code()
    });
    stderr::finish();
    code
}

fn execute(action: Action) -> Result<u8, Error> {
    match action {
        Action::Run(args) => run::run(*args),
        Action::Inspect(args) => inspect::inspect(&args),
        Action::Ctl(args) => ctl::run(&args),
        Action::Clones(args) => clones::run(*args),
        Action::Image(args) => pack::run(&args),
        Action::Probe => probe(),
    }
}

/// Prints clap's answer: help and version on standard output, mistakes on standard error.
fn print_answer(error: &clap::Error) -> Result<u8, Error> {
    if !error.use_stderr() {
        return error.print().map(|()| 0).map_err(Error::Stdout);
    }
    let text = error.render();
    let text =
        if std::io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
    let name = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        ""
    } else {
        "vmm: "
    };
    // There is nowhere to say that standard error cannot be written.
    let _ = write!(std::io::stderr().lock(), "{name}{text}");
    Ok(exit_code::USAGE)
}

/// Prints one word for programs on standard output, and the reason for people on standard error.
fn probe() -> Result<u8, Error> {
    let host = nerite_kvm::probe::host();
    let word = match host {
        HostKvm::Hardware => "hardware",
        HostKvm::Emulating { .. } => "emulating",
        HostKvm::None { .. } => "none",
    };
    output::say(&host.to_string());
    output::print(format_args!("{word}\n"))?;
    Ok(0)
}
