//! Guests that are tests: which there are, what they need, and how they are run.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::job::{Job, Outcome};
use crate::lab::Machine;
use crate::platform::{Platform, Runner};
use crate::repeat::Repeat;
use crate::results::Results;
use crate::software::{self, Host};
use crate::suite::{Suite, Test};
use crate::{build, doctor, hand_over, hermit, kernels, linux, paths, progress, verdict};

/// Beginning of the filters that select hostile guests.
pub(crate) const HOSTILE: &str = "hostile";
/// Memory of a lab; some guests have 5 GiB.
const LAB_MEMORY_MIB: u64 = 8192;

/// Memory of the host that a lab takes besides its own, and that builds next to it need.
const SPARE_MIB: u64 = 1024;

/// The tests with `filter` in their name; those of the slow group only if it begins with the
/// group's name.
pub(crate) fn select(filter: &str) -> Result<Vec<Test>> {
    let suite = match filter {
        group if group.starts_with("hermit") => Suite::load_hermit(),
        group if group.starts_with("linux") => Suite::load_linux(),
        group if group.starts_with(HOSTILE) => Suite::load_hostile(),
        _ => Suite::load(),
    }?;
    let tests: Vec<Test> =
        suite.tests.into_iter().filter(|test| test.name.contains(filter)).collect();
    ensure!(!tests.is_empty(), "no test has \"{filter}\" in its name; --list shows them");
    Ok(tests)
}

/// Runner of guest tests.
pub(crate) fn runner(platform: Platform, workers: usize) -> Runner {
    let machine = Machine { memory_mib: LAB_MEMORY_MIB, ..Machine::default() };
    Runner { platform, workers, machine, repeat: Repeat::default() }
}

/// Number of labs that this host carries at the same time: each keeps one processor busy, and may
/// use all of its memory.
pub(crate) fn labs() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = doctor::free_mib() / (LAB_MEMORY_MIB + SPARE_MIB);
    // More would be faster only on a machine that does nothing else.
    processors.min(usize::try_from(memory).unwrap_or(usize::MAX)).clamp(1, 2)
}

/// Builds what the tests need and runs them.
pub(crate) fn run(tests: &[Test], runner: &Runner) -> Result<Results> {
    run_with(tests, runner, &build::vmm()?)
}

/// Builds what the tests need and runs them on this host, on the processor in software. Tests that
/// cannot run there are counted as skipped.
pub(crate) fn run_in_software(tests: &[Test], workers: usize, repeat: Repeat) -> Result<Results> {
    run_in_software_with(tests, workers, repeat, &build::vmm()?)
}

/// The same with this `vmm`.
pub(crate) fn run_in_software_with(
    tests: &[Test],
    workers: usize,
    repeat: Repeat,
    vmm: &Path,
) -> Result<Results> {
    let (host, vmm) = (Host::probe()?, software::wrap(vmm)?);
    let mut results = Results::default();
    let mut chosen = Vec::new();
    for test in tests {
        match host.refuses(test) {
            Some(reason) => {
                progress::print(&format!(
                    "SKIP {}: not on the processor in software: {reason}",
                    test.name
                ));
                results.summary.skipped += 1;
            }
            None => chosen.push(test.expecting(&test.software_stdout)),
        }
    }
    let runner = Runner { repeat, ..runner(Platform::Hardware, workers) };
    results +=
        run_adapted(&chosen, &runner, &vmm, &|test, job| Ok(host.adapt(test, job)), &|_| {})?;
    Ok(results)
}

/// Builds what the tests need and runs them with guests that are handed over all the time. Tests
/// that need one hypervisor alone are counted as skipped.
pub(crate) fn run_handed_over(tests: &[Test], runner: &Runner) -> Result<Results> {
    let vmm = build::vmm()?;
    let wrapped = hand_over::wrap(&vmm, &runner.platform.tools()?.xtask)?;
    let mut results = Results::default();
    let mut chosen = Vec::new();
    for test in tests {
        match hand_over::refuses(test) {
            Some(reason) => {
                progress::print(&format!("SKIP {}: not handed over: {reason}", test.name));
                results.summary.skipped += 1;
            }
            None => chosen.push(test.handed_over()),
        }
    }
    let total = hand_over::Total::default();
    results += run_adapted(
        &chosen,
        runner,
        &wrapped,
        &|_, job| Ok(hand_over::adapt(&vmm, job)),
        &|outcome| total.add(outcome),
    )?;
    total.check()?;
    Ok(results)
}

/// Builds what the tests need besides `vmm`, and runs them on KVM.
pub(crate) fn run_with(tests: &[Test], runner: &Runner, vmm: &Path) -> Result<Results> {
    let tests: Vec<Test> = tests.iter().map(|test| test.expecting(&test.kvm_stdout)).collect();
    run_adapted(&tests, runner, vmm, &|_, job| Ok(job), &|_| {})
}

/// Builds what the tests need besides `vmm`, and runs the jobs that `adapt` makes of theirs.
/// `seen` gets each outcome.
fn run_adapted(
    tests: &[Test],
    runner: &Runner,
    vmm: &Path,
    adapt: &dyn Fn(&Test, Job) -> Result<Job>,
    seen: &dyn Fn(&Outcome),
) -> Result<Results> {
    let kernels =
        tests.iter().any(|test| !test.hermit && !test.linux).then(kernels::build).transpose()?;
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
    let tools = runner.platform.tools()?;
    let job = |test: &&Test| {
        let folder = match (test.hermit, test.linux) {
            (true, _) => &hermit,
            (_, true) => &linux,
            _ => &kernels,
        };
        let folder = folder.as_deref().context("the guests are not built")?;
        adapt(test, test.job(vmm, folder, &images, &tools)?)
    };
    let jobs = chosen.iter().map(job).collect::<Result<Vec<Job>>>()?;
    results += verdict::run(runner, &jobs, &|index, outcome| {
        seen(outcome);
        chosen.get(index).map_or_else(Vec::new, |test| test.judge(outcome))
    })?;
    Ok(results)
}
