//! `cargo xtask`: builds, runs and tests Nerite. `cargo xtask help` lists what it can do.

#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a tool of developers: a bug may end it"
)]

mod bench;
mod build;
mod containers;
mod coverage;
mod crates;
mod debugger;
mod dist;
mod doctor;
mod exec;
mod fuzz;
mod gdb_from_host;
mod goes_on;
mod guest_tests;
mod guest_words;
mod hand_over;
mod hermit;
mod host;
mod host_tests;
mod hostile;
mod job;
mod kernels;
mod lab;
mod libtest;
mod linux;
mod net_peer;
mod package;
mod packages;
mod paths;
mod platform;
mod progress;
mod repeat;
mod report;
mod results;
mod retry;
mod rounds;
mod run;
mod signals;
mod smoke;
mod software;
mod style;
mod suite;
mod test;
mod test_kernels;
mod unit_tests;
mod verdict;
mod wrapper;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

/// Builds, runs and tests Nerite.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
enum Cli {
    /// Run a guest: on KVM where it works, on the processor in software otherwise
    Run(run::Args),
    /// Check everything: format, lints, unit tests, documentation, packages, guests
    Test(test::Args),
    /// Check rules of style that no compiler checks
    Style(style::Args),
    /// Say what this machine has of what guests need, and what to do about the rest
    Doctor,
    /// Make the stripped program, shell completions, man pages, the bill of materials and the book,
    /// in target/dist
    Dist,
    /// Run a command in the lab: an emulated machine with real KVM
    Lab(lab::Args),
    /// Boot the test kernels, on hardware KVM or in the lab
    TestKernels(test_kernels::Args),
    /// Run a build of kvm-unit-tests under vmm, on hardware KVM or in the lab
    UnitTests(unit_tests::Args),
    /// Check that each crate builds from its package, alone, and so do the programs in its README
    Packages,
    /// Run the fuzz targets for a while each
    Fuzz(fuzz::Args),
    /// Count the lines of crates that a guest reaches, and those that their tests execute
    Coverage(coverage::Args),
    /// Run the host's own tests that use KVM, where KVM is real
    TestHost(host_tests::Args),
    /// Measure vmm, beside its peer where there is one
    Bench(bench::Args),
    /// Measure the cases in a file (this is what works where guests run)
    #[command(hide = true)]
    BenchWorker {
        /// The file
        cases: std::path::PathBuf,
    },
    /// Run vmm with a network card and talk to its guest (this is what works where guests run)
    #[command(hide = true)]
    NetPeer(net_peer::Args),
    /// Hand a guest over and back until it ends (this is what works where guests run)
    #[command(hide = true)]
    HandOver(hand_over::Args),
    /// Run the list of jobs (this is what works inside the lab)
    #[command(hide = true)]
    Agent,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What runs inside the lab has it to itself.
    if !matches!(cli, Cli::Agent)
        && let Err(error) = signals::end_children()
    {
        progress::say(&format!("warning: {error:#}"));
    }
    let result = match cli {
        Cli::Run(args) => run::main(args),
        Cli::Test(args) => test::main(&args),
        Cli::Style(args) => style::main(&args),
        Cli::Doctor => doctor::main(),
        Cli::Dist => dist::main().map(|()| 0),
        Cli::Lab(args) => lab::main(args),
        Cli::TestKernels(args) => test_kernels::main(&args),
        Cli::UnitTests(args) => unit_tests::main(&args),
        Cli::Packages => package::check().map(|results| results.close()),
        Cli::Fuzz(args) => fuzz::main(&args),
        Cli::Coverage(args) => coverage::main(&args),
        Cli::TestHost(args) => host_tests::main(&args),
        Cli::Bench(args) => bench::main(&args),
        Cli::BenchWorker { cases } => bench::worker::main(&cases).map(|()| 0),
        Cli::NetPeer(args) => net_peer::main(&args),
        Cli::HandOver(args) => hand_over::main(&args),
        Cli::Agent => lab::agent::main(Path::new(lab::agent::JOBS)).map(|()| 0),
    };
    match result {
        // A process has no more than a byte to say how it ended.
        Ok(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        Err(error) => {
            progress::say(&format!("{error:#}"));
            ExitCode::from(125)
        }
    }
}
