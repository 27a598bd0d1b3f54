//! `cargo xtask test-kernels`: boots test guests and looks at what came of it.

use anyhow::{Result, ensure};

use crate::platform::{Platform, Runner};
use crate::repeat::Repeat;
use crate::{guest_tests, hostile, progress};

/// `cargo xtask test-kernels`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only tests with this text in their name; "hermit" is the group of real Hermit
    /// applications, "linux" that of other kernels, "hostile" runs that of hostile guests with
    /// debug assertions and under AddressSanitizer
    filter: Option<String>,
    /// Print the tests' names and run nothing
    #[arg(long)]
    list: bool,
    /// Run so many at the same time; in the lab, that many labs, each with its own emulated CPU
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    jobs: usize,
    /// Run the tests on this host, on the processor in software, as this user
    #[arg(long)]
    software: bool,
    /// Only reset network cards in the middle of traffic, so many times each, with an echo after
    /// each: in those tests that do so a few times
    #[arg(long, value_name = "N")]
    resets: Option<usize>,
    /// Hand each guest over between KVM and the processor in software every few milliseconds
    #[arg(long, conflicts_with = "software")]
    hand_over: bool,
    #[command(flatten)]
    repeat: Repeat,
}

/// Runs the tests, prints a line for each and the closing line; the status is 1 if one failed.
pub(crate) fn main(args: &Args) -> Result<i32> {
    let filter = args.filter.as_deref().unwrap_or_default();
    let mut tests = guest_tests::select(filter)?;
    if let Some(count) = args.resets {
        tests = tests.iter().filter_map(|test| test.with_resets(count)).collect();
        ensure!(
            !tests.is_empty(),
            "no test with \"{filter}\" in its name resets a card in traffic"
        );
    }
    if args.list {
        tests.iter().for_each(|test| progress::print(&test.name));
        return Ok(0);
    }
    if args.software {
        let _load = args.repeat.load();
        return Ok(guest_tests::run_in_software(&tests, args.jobs, args.repeat)?.close());
    }
    let runner =
        Runner { repeat: args.repeat, ..guest_tests::runner(Platform::choose()?, args.jobs) };
    if args.hand_over {
        let _load = args.repeat.load();
        return Ok(guest_tests::run_handed_over(&tests, &runner)?.close());
    }
    let run =
        if filter.starts_with(guest_tests::HOSTILE) { hostile::run } else { guest_tests::run };
    let _load = args.repeat.load();
    Ok(run(&tests, &runner)?.close())
}
