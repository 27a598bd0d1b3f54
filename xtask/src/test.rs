//! `cargo xtask test`: everything that can be checked, guests included.

mod sources;

use std::collections::HashSet;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::build::{self, cargo, quiet};
use crate::job::Summary;
use crate::libtest::cargo::Tests;
use crate::platform::Platform;
use crate::repeat::Repeat;
use crate::results::{Failure, Results};
use crate::suite::Test;
use crate::{
    containers, dist, guest_tests, hermit, host_tests, hostile, kernels, lab, libtest, linux,
    package, paths, progress, smoke,
};

/// `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out everything that boots a guest
    #[arg(long)]
    no_guests: bool,
    /// Only style, lints, unit tests, and a smoke set of guests in one boot of the lab: some
    /// minutes after a build
    #[arg(long)]
    quick: bool,
    /// Fail where neither this host nor a lab has a KVM, or guests or dependencies cannot be
    /// downloaded, and skip nothing for that reason
    #[arg(long)]
    all_guests: bool,
}

/// A test run as it goes.
#[derive(Default)]
struct Run {
    results: Results,
    failed: Vec<String>,
    /// Names and times of groups.
    groups: Vec<(String, Duration)>,
}

/// Work that can be done beside other work.
enum Work {
    /// A group of tests, with its name.
    Group(&'static str, fn() -> Result<Results>),
    /// A build that a later group needs.
    Ahead(fn() -> Result<()>),
}

impl Run {
    /// A check that passes or fails as a whole.
    fn check(&mut self, name: &str, what: impl FnOnce() -> Result<()>) {
        self.group(name, || what().map(passed));
    }

    /// A group of tests with counts of its own. An error is one more failure.
    fn group(&mut self, name: &str, what: impl FnOnce() -> Result<Results>) {
        let (results, time) = attempt(name, what);
        self.add(name, results, time);
    }

    fn add(&mut self, name: &str, results: Results, time: Duration) {
        if results.summary.failed > 0 {
            self.failed.push(name.to_owned());
        }
        self.results += results;
        self.groups.push((name.to_owned(), time));
    }

    /// Does all of this, two at a time: each leaves a processor idle while it links, or has one
    /// crate left to compile.
    fn together(&mut self, work: Vec<Work>) {
        let queue = Mutex::new(work.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let (sender, results) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..2 {
                let sender = sender.clone();
                scope.spawn(move || {
                    while let Some(work) = next() {
                        match work {
                            Work::Group(name, what) => {
                                drop(sender.send((name, attempt(name, what))))
                            }
                            // A failure comes again, and is reported, in the group that needs it.
                            Work::Ahead(build) => drop(build()),
                        }
                    }
                });
            }
            drop(sender);
            results.into_iter().for_each(|(name, (results, time))| self.add(name, results, time));
        });
    }

    fn skip(&mut self, name: &str, reason: &str) {
        progress::print(&format!("SKIP {name}: {reason}"));
        self.results.summary.skipped += 1;
    }
}

/// Runs a group of tests; returns its results and how long it took.
fn attempt(name: &str, what: impl FnOnce() -> Result<Results>) -> (Results, Duration) {
    let (step, start) = (progress::step(name), Instant::now());
    let results = what().unwrap_or_else(|error| {
        let error = format!("{error:#}");
        progress::print(&format!("FAIL {name}: {error}"));
        Results::failed(Failure::new(name, error))
    });
    step.done_with(&results.to_string());
    (results, start.elapsed())
}

/// Results of one check that has passed.
fn passed((): ()) -> Results {
    Results::passed()
}

/// Runs everything and prints the closing lines; the status is 1 if anything failed.
pub(crate) fn main(args: &Args) -> Result<i32> {
    let time = if args.quick {
        "about ten minutes the first time, six after a build"
    } else if args.no_guests {
        "about ten minutes"
    } else {
        "about half an hour"
    };
    progress::say(&format!("this takes {time} on two processors that do nothing else"));
    let mut run = Run::default();
    sources::check(&mut run, args.all_guests);
    run.group("unit and integration tests", || {
        unit_tests(&["--tests"], !args.no_guests && !args.quick)
    });
    if args.quick {
        run.skip("all but style, lints, unit tests and a smoke set", "left out with --quick");
    } else {
        run.group("documentation tests", || unit_tests(&["--doc"], false));
        run.group("examples", examples);
        progress::together(|| run.together(builds(args)));
    }
    match (args.no_guests, args.quick) {
        (true, _) => run.skip("guests", "left out with --no-guests"),
        (false, true) => match Platform::choose() {
            Ok(platform) => match obstacle(platform, args.all_guests) {
                Some(reason) => run.skip("smoke set", &reason),
                None => run.group("smoke set", || smoke(platform)),
            },
            Err(error) => run.group("smoke set", || Err(error)),
        },
        (false, false) => guests(&mut run, args.all_guests),
    }
    progress::print("time of each group:");
    for (name, time) in &run.groups {
        progress::print(&format!("{:9.1} s  {name}", time.as_secs_f64()));
    }
    for name in &run.failed {
        progress::say(&format!("failed: {name}"));
    }
    Ok(run.results.close())
}

/// Runs the tests of all crates, of these kinds.
fn unit_tests(kinds: &[&str], later: bool) -> Result<Results> {
    let command = || {
        let mut command = cargo();
        command.args(["test", "--workspace", "--all-features", "--no-fail-fast"]).args(kinds);
        command
    };
    let documentation = kinds.contains(&"--doc");
    libtest::cargo::run(Tests { command: &command, documentation, later, options: &[] })
}

/// Work that is mostly building, the longest first.
fn builds(args: &Args) -> Vec<Work> {
    let mut work = Vec::new();
    if !args.no_guests {
        work.push(Work::Ahead(|| hermit::build().map(drop)));
    }
    work.push(Work::Group("shell completions, man pages and the stripped program", || {
        dist::main().map(passed)
    }));
    work.push(Work::Group("packages, each alone, and their README programs", package::check));
    work.push(Work::Group("every order of a vCPU's threads", loom));
    work.push(Work::Group("documentation", || {
        let mut command = cargo();
        command.args(["doc", "--quiet", "--workspace", "--no-deps"]);
        quiet(command.env("RUSTDOCFLAGS", "-D warnings")).map(passed)
    }));
    if !args.no_guests {
        work.push(Work::Ahead(|| kernels::build().map(drop)));
    }
    work
}

/// Some guests of each kind, with the `vmm` that the unit tests have built.
fn smoke(platform: Platform) -> Result<Results> {
    let runner = guest_tests::runner(platform, 1);
    guest_tests::run_with(&smoke::tests()?, &runner, &build::vmm_for_tests()?)
}

/// Reason why there can be no KVM, if there is one and it is no failure.
fn obstacle(platform: Platform, is_failure: bool) -> Option<String> {
    if is_failure || platform == Platform::Hardware {
        return None;
    }
    let reason = lab::obstacle()?;
    Some(format!("it needs a KVM, and there can be no lab: {reason}"))
}

fn guests(run: &mut Run, all: bool) {
    let platform = match Platform::choose() {
        Ok(platform) => platform,
        Err(error) => return run.group("guests", || Err(error)),
    };
    // On hardware, tests run one by one: some look at how busy the host is.
    let workers = if platform == Platform::Lab { guest_tests::labs() } else { 1 };
    let runner = guest_tests::runner(platform, workers);
    let without_kvm = obstacle(platform, all);
    let on_kvm = |run: &mut Run, name: &str, what: &dyn Fn() -> Result<Results>| match &without_kvm
    {
        Some(reason) => run.skip(name, reason),
        None => run.group(name, what),
    };
    on_kvm(run, "test kernels", &|| {
        // In the same lab, and the long ones first, or a lab is left with one at the end.
        let mut tests = guest_tests::select("linux")?;
        tests.extend(guest_tests::select("")?);
        guest_tests::run(&tests, &runner)
    });
    run.group("test kernels on the processor in software", || {
        guest_tests::run_in_software(&guest_tests::select("")?, workers, Repeat::default())
    });
    run.group("Linux and Hermit on the processor in software", || {
        let mut results = Results::default();
        let mut tests = smoke::in_software()?;
        if !all {
            tests = obtainable(tests, &mut results);
        }
        results += guest_tests::run_in_software(&tests, workers, Repeat::default())?;
        Ok(results)
    });
    on_kvm(run, "guests handed over between KVM and software", &|| {
        guest_tests::run_handed_over(&smoke::handed_over()?, &runner)
    });
    on_kvm(run, "tests that use KVM", &|| host_tests::run(&runner, host_tests::Filter::default()));
    match containers::obstacle() {
        None => run.group("guests as containers", containers::run),
        Some(reason) => run.skip("guests as containers", &reason),
    }
    on_kvm(run, "hostile guests", &|| {
        hostile::run_asserting(&guest_tests::select(guest_tests::HOSTILE)?, &runner)
    });
    on_kvm(run, "real Hermit applications", &|| {
        guest_tests::run(&guest_tests::select("hermit")?, &runner)
    });
}

/// The tests whose guests can be had. The others are counted as skipped.
fn obtainable(mut tests: Vec<Test>, results: &mut Results) -> Vec<Test> {
    let (linux, hermit) = (linux::obstacle(), hermit::obstacle());
    tests.retain(|test| {
        let linux = linux.as_ref().filter(|_| test.linux);
        let reason = linux.or(hermit.as_ref().filter(|_| test.hermit));
        if let Some(reason) = reason {
            progress::print(&format!("SKIP {}: its guest cannot be had: {reason}", test.name));
            results.summary.skipped += 1;
        }
        reason.is_none()
    });
    tests
}

/// Runs the models of the threads that share a vCPU, which a plain `cargo test` leaves out.
fn loom() -> Result<Results> {
    let command = || {
        let mut command = cargo();
        command.args(["test", "--release", "--package", "nerite-vcpu", "--test", "loom"]);
        // The models run for a few seconds; to have loom optimised takes longer.
        command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").env("CARGO_PROFILE_RELEASE_LTO", "off");
        command.arg("--target-dir").arg(paths::target().join("loom"));
        // The lints that deny what tests may do are not for the primitives under loom.
        command.env("RUSTFLAGS", "--cfg loom");
        command
    };
    libtest::cargo::run(Tests {
        command: &command,
        documentation: false,
        later: false,
        options: &[],
    })
}

/// Runs every example of every crate: they end by themselves and need no KVM. No two may have the
/// same name: one would be built in the other's place.
fn examples() -> Result<Results> {
    let built = build::examples()?;
    let mut results = Results::default();
    let mut names = HashSet::new();
    for folder in fs::read_dir(paths::root().join("crates")).context("cannot read crates/")? {
        let Ok(examples) = fs::read_dir(folder?.path().join("examples")) else { continue };
        for example in examples {
            let file = example?.path();
            let name = file.file_stem().unwrap_or_default();
            ensure!(names.insert(name.to_owned()), "two examples are called {}", name.display());
            let mut program = Command::new(built.join(name));
            match quiet(program.stdin(Stdio::null()).current_dir(paths::root())) {
                Ok(()) => results += Results::passed(),
                Err(error) => {
                    let (name, error) =
                        (format!("example {}", file.display()), format!("{error:#}"));
                    progress::print(&format!("FAIL {name}: {error}"));
                    results += Results::failed(Failure::new(name, error));
                }
            }
        }
    }
    ensure!(results.summary != Summary::default(), "there are no examples");
    Ok(results)
}
