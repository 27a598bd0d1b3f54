//! `cargo xtask test-kernels`: boots every test kernel and looks at what came of it.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::job::Job;
use crate::lab::{self, Machine};
use crate::platform::{Platform, Runner};
use crate::repeat::Repeat;
use crate::results::Results;
use crate::suite::{Suite, Test};
use crate::{build, doctor, hermit, hostile, kernels, linux, paths, progress, verdict};

/// Some guests have 5 GiB.
const LAB_MEMORY_MIB: u64 = 8192;

/// What a lab takes besides its memory, and what builds next to it need.
const SPARE_MIB: u64 = 1024;

/// `cargo xtask test-kernels`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only tests with this text in their name; "hermit" is the group of real Hermit applications, "linux" that
    /// of other kernels, "hostile" runs that of hostile guests with debug assertions and under AddressSanitizer
    filter: Option<String>,
    /// Print the tests' names and run nothing
    #[arg(long)]
    list: bool,
    /// How many to run at the same time; in the lab, that many labs, each with its own emulated CPU
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    jobs: usize,
    #[command(flatten)]
    repeat: Repeat,
}

/// Runs the tests, prints a line for each and the closing line; the status is 1 if one failed.
pub(crate) fn main(args: &Args) -> Result<i32> {
    let filter = args.filter.as_deref().unwrap_or_default();
    let tests = select(filter)?;
    if args.list {
        tests.iter().for_each(|test| progress::print(&test.name));
        return Ok(0);
    }
    let runner = Runner { repeat: args.repeat, ..runner(Platform::choose(), args.jobs) };
    let run = if filter.starts_with(hostile::GROUP) { hostile::run } else { run };
    let _load = args.repeat.load();
    Ok(run(&tests, &runner)?.close())
}

/// The tests with `filter` in their name; those of the slow group only if it begins with the group's name.
pub(crate) fn select(filter: &str) -> Result<Vec<Test>> {
    let suite = match filter {
        group if group.starts_with("hermit") => Suite::load_hermit(),
        group if group.starts_with("linux") => Suite::load_linux(),
        group if group.starts_with(hostile::GROUP) => Suite::load_hostile(),
        _ => Suite::load(),
    }?;
    let tests: Vec<Test> = suite.tests.into_iter().filter(|test| test.name.contains(filter)).collect();
    ensure!(!tests.is_empty(), "no test has \"{filter}\" in its name; --list shows them");
    Ok(tests)
}

/// How guest tests are run.
pub(crate) fn runner(platform: Platform, workers: usize) -> Runner {
    let machine = Machine { memory_mib: LAB_MEMORY_MIB, ..Machine::default() };
    Runner { platform, workers, machine, repeat: Repeat::default() }
}

/// How many labs this host carries at the same time: each keeps one processor busy, and may come to use all of its memory.
pub(crate) fn labs() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = doctor::free_mib() / (LAB_MEMORY_MIB + SPARE_MIB);
    // More would be faster only where somebody waits for nothing else.
    processors.min(usize::try_from(memory).unwrap_or(usize::MAX)).clamp(1, 2)
}

/// Builds what the tests need and runs them.
pub(crate) fn run(tests: &[Test], runner: &Runner) -> Result<Results> {
    run_with(tests, runner, &build::vmm()?)
}

/// Builds what the tests need besides `vmm`, and runs them.
pub(crate) fn run_with(tests: &[Test], runner: &Runner, vmm: &Path) -> Result<Results> {
    let kernels = tests.iter().any(|test| !test.hermit && !test.linux).then(kernels::build).transpose()?;
    let hermit = tests.iter().any(|test| test.hermit).then(hermit::build).transpose()?;
    let linux = tests.iter().any(|test| test.linux).then(linux::build).transpose()?;
    let images = paths::target().join("kernels/images");
    let mut results = Results::default();
    let mut chosen = Vec::new();
    for test in tests {
        match &test.hardware_only {
            Some(reason) if runner.platform == Platform::Lab => {
                progress::print(&format!("SKIP {}: on hardware KVM only: {reason}", test.name));
                results.summary.skipped += 1;
            }
            _ => chosen.push(test),
        }
    }
    let myself = match runner.platform {
        Platform::Lab => lab::MYSELF.to_owned(),
        _ => std::env::current_exe()?.display().to_string(),
    };
    let job = |test: &&Test| {
        let folder = match (test.hermit, test.linux) {
            (true, _) => &hermit,
            (_, true) => &linux,
            _ => &kernels,
        };
        test.job(vmm, folder.as_deref().context("the guests are not built")?, &images, &myself)
    };
    let jobs = chosen.iter().map(job).collect::<Result<Vec<Job>>>()?;
    results += verdict::run(runner, &jobs, &|index, outcome| {
        chosen.get(index).map_or_else(Vec::new, |test| test.judge(outcome))
    })?;
    Ok(results)
}
