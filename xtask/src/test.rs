//! `cargo xtask test`: everything that can be checked, guests included.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::build::cargo;
use crate::job::Summary;
use crate::platform::Platform;
use crate::{dist, host_tests, kernels, libtest, paths, progress, style, test_kernels};

/// `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out everything that boots a guest
    #[arg(long)]
    no_guests: bool,
    /// Leave out the slow parts: real Hermit applications, and building every packaged crate alone
    #[arg(long)]
    quick: bool,
}

/// A test run as it goes.
struct Run {
    summary: Summary,
    failed: Vec<String>,
}

impl Run {
    /// A check that passes or fails as a whole.
    fn check(&mut self, name: &str, what: impl FnOnce() -> Result<()>) {
        self.group(name, || what().map(|()| Summary { passed: 1, ..Summary::default() }));
    }

    /// A group of tests with counts of its own. An error is one more failure.
    fn group(&mut self, name: &str, what: impl FnOnce() -> Result<Summary>) {
        let step = progress::step(name);
        let summary = what().unwrap_or_else(|error| {
            progress::print(&format!("FAIL {name}: {error:#}"));
            Summary { failed: 1, ..Summary::default() }
        });
        if summary.failed > 0 {
            self.failed.push(name.to_owned());
        }
        self.summary += summary;
        step.done_with(&summary.to_string());
    }

    fn skip(&mut self, name: &str, reason: &str) {
        progress::print(&format!("SKIP {name}: {reason}"));
        self.summary.skipped += 1;
    }
}

/// Runs everything and prints the closing line; the status is 1 if anything failed.
pub(crate) fn main(args: &Args) -> Result<i32> {
    let mut run = Run { summary: Summary::default(), failed: Vec::new() };
    sources(&mut run);
    run.group("unit, integration and documentation tests", || {
        let arguments = ["test", "--workspace", "--all-features", "--no-fail-fast"];
        libtest::run(cargo().args(arguments), !args.no_guests)
    });
    run.group("examples", examples);
    run.check("documentation", || {
        let mut command = cargo();
        command.args(["doc", "--quiet", "--workspace", "--no-deps"]);
        quiet(command.env("RUSTDOCFLAGS", "-D warnings"))
    });
    run.check("shell completions, man pages and the stripped program", dist::main);
    package(&mut run, args.quick);
    if args.no_guests {
        run.skip("guests", "left out with --no-guests");
    } else {
        guests(&mut run, args.quick)?;
    }
    for name in &run.failed {
        progress::say(&format!("failed: {name}"));
    }
    progress::print(&run.summary.to_string());
    Ok(i32::from(run.summary.failed > 0))
}

/// What can be said of the sources without running them.
fn sources(run: &mut Run) {
    run.check("style", style::check);
    run.check("format", || {
        quiet(cargo().args(["fmt", "--all", "--check"]))?;
        for folder in ["tests/kernels", "tests/hermit-app", "fuzz"] {
            quiet(cargo().args(["fmt", "--all", "--check"]).current_dir(paths::root().join(folder)))
                .with_context(|| folder.to_owned())?;
        }
        Ok(())
    });
    run.check("clippy", || {
        let arguments = ["clippy", "--quiet", "--workspace", "--all-targets", "--all-features"];
        quiet(cargo().args(arguments).args(["--", "-D", "warnings"]))
    });
    run.check("clippy on the test kernels", || {
        let mut command = kernels::guest_cargo("clippy");
        quiet(command.args(["--quiet", "--release", "--workspace", "--bins", "--", "-D", "warnings"]))
    });
}

/// Whether every crate can be published alone.
fn package(run: &mut Run, quick: bool) {
    let name = "packages";
    let mut command = cargo();
    // The sources of a package are those of the tree, committed or not: that is what is tested here.
    command.args(["package", "--quiet", "--workspace", "--exclude", "xtask", "--allow-dirty"]);
    if quick {
        command.arg("--no-verify");
    }
    run.check(name, || quiet(&mut command));
}

fn guests(run: &mut Run, quick: bool) -> Result<()> {
    let runner = test_kernels::runner(Platform::choose(), 1);
    let tests = test_kernels::select("")?;
    run.group("test kernels", || test_kernels::run(&tests, &runner));
    run.group("tests that use KVM", || host_tests::run(&runner));
    if quick {
        run.skip("real Hermit applications", "left out with --quick");
    } else {
        run.group("real Hermit applications", || {
            let tests = test_kernels::select("hermit")?;
            test_kernels::run(&tests, &runner)
        });
    }
    Ok(())
}

/// Runs every example of every crate: they end by themselves and need no KVM.
fn examples() -> Result<Summary> {
    let mut summary = Summary::default();
    let root = paths::root();
    for folder in fs::read_dir(root.join("crates")).context("cannot read crates/")? {
        let folder = folder?;
        let Ok(examples) = fs::read_dir(folder.path().join("examples")) else { continue };
        for example in examples {
            let file = example?.path();
            let Some(name) = file.file_stem().and_then(|stem| stem.to_str()) else { continue };
            let package = format!("nerite-{}", folder.file_name().to_string_lossy());
            let result = quiet(cargo().args(["run", "--quiet", "--package", &package, "--example", name]));
            match result {
                Ok(()) => summary.passed += 1,
                Err(error) => {
                    progress::print(&format!("FAIL example {name} of {package}: {error:#}"));
                    summary.failed += 1;
                }
            }
        }
    }
    ensure!(summary != Summary::default(), "there are no examples");
    Ok(summary)
}

/// Runs a command whose output is of interest only when it fails.
fn quiet(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context("cannot run cargo")?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{}\n{}{}", output.status, err, out);
    }
    Ok(())
}
