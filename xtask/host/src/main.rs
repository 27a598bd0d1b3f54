//! Questions of `cargo xtask` to the host that it runs on, answered through Nerite's crates. A
//! program of its own, so that xtask builds without them.

#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Parser;
use nerite_kvm::probe::{self, HostKvm};
use nerite_kvm::tsc;
use nerite_virtio_net::Side;

/// Word of a command in whose place the descriptor is put.
const DESCRIPTOR: &str = "fd=TAP";

/// Questions to this host.
#[derive(Debug, Parser)]
enum Cli {
    /// Print the kind of the host's KVM, found out by running a guest; the status is 0 if it is
    /// hardware KVM, 1 otherwise
    Kvm,
    /// Print the rate of the time-stamp counter in kHz
    Tsc,
    /// Open a tap and run a command that gets it: `fd=N` for the word `fd=TAP`
    Tap {
        /// Name of the tap's interface
        name: String,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> Result<ExitCode> {
    match Cli::parse() {
        Cli::Kvm => {
            let kvm = probe::host();
            print(&kvm);
            Ok(ExitCode::from(u8::from(!matches!(kvm, HostKvm::Hardware))))
        }
        Cli::Tsc => {
            print(&tsc::measure_khz());
            Ok(ExitCode::SUCCESS)
        }
        Cli::Tap { name, command } => {
            let tap = open_tap(&name)?;
            let descriptor = format!("fd={}", tap.as_raw_fd());
            let words: Vec<_> = command
                .iter()
                .map(|word| if word == DESCRIPTOR { &descriptor } else { word })
                .collect();
            let (program, words) = words.split_first().context("no command")?;
            // Returns only if it fails.
            let error = Command::new(program).args(words).exec();
            Err(error).with_context(|| format!("cannot run {program}"))
        }
    }
}

#[allow(clippy::print_stdout, reason = "the answer")]
fn print(answer: &dyn std::fmt::Display) {
    println!("{answer}");
}

/// Opens the tap of this name. Programs that are started inherit the descriptor.
fn open_tap(name: &str) -> Result<OwnedFd> {
    let connection = nerite_net::open(&format!("tap={name}").parse()?)?;
    let Side::Backends(queues) = connection.side else { bail!("a tap without a queue") };
    let queue = queues.first().context("a tap without a queue")?;
    // The copy is not closed on exec.
    Ok(rustix::io::dup(queue.fd())?)
}
