//! Runs the test programs of the crates that use KVM where KVM is real: on a host without, that is in the lab. Those of
//! their tests that need one are ignored in a plain `cargo test`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::build::cargo;
use crate::job::{Ending, Job, Summary};
use crate::libtest::Reader;
use crate::platform::Runner;
use crate::{paths, progress, test_kernels};

/// The packages whose tests use KVM.
const PACKAGES: [&str; 3] = ["nerite-kvm", "nerite-machine", "nerite-vmm"];
/// Seconds for one test program.
const TIMEOUT: u64 = 300;

/// Builds the test programs and runs them where `runner` runs guests.
pub(crate) fn run(runner: &Runner) -> Result<Summary> {
    let programs = build()?;
    let vmm = paths::target().join("debug/vmm");
    let job = |program: &PathBuf| Job {
        name: program.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        command: vec![program.display().to_string(), "--include-ignored".to_owned()],
        dir: Some("/tmp".into()),
        timeout: TIMEOUT,
        files: vec![program.clone(), vmm.clone()],
        ..Job::default()
    };
    let jobs: Vec<Job> = programs.iter().map(job).collect();
    let mut total = Summary::default();
    runner.run(&jobs, &mut |index, outcome| {
        let Some(job) = jobs.get(index) else { return };
        let mut reader = Reader::default();
        String::from_utf8_lossy(&outcome.stdout).lines().for_each(|line| {
            reader.line(line);
        });
        for text in
            String::from_utf8_lossy(&outcome.stderr).lines().filter_map(|line| reader.error_line(line))
        {
            progress::print(&text);
        }
        let ended = matches!(outcome.ending, Ending::Exited(0));
        if ended {
            progress::print(&format!("ok   {}: {}", job.name, reader.summary));
        } else {
            let wrong = [format!("expected exit code 0, got: {}", outcome.ending)];
            test_kernels::print_verdict(job, outcome, &wrong);
            reader.summary.failed = reader.summary.failed.max(1);
        }
        total += reader.summary;
    })?;
    Ok(total)
}

/// Builds the test programs and says where they are.
fn build() -> Result<Vec<PathBuf>> {
    let mut command = cargo();
    command.args(["test", "--no-run", "--all-features"]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    let output = command.arg("--target-dir").arg(paths::target()).output().context("cannot run cargo")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the tests do not build:\n{text}");
    let programs = programs_in(&text);
    ensure!(!programs.is_empty(), "cargo named no test program:\n{text}");
    Ok(programs)
}

/// Reads lines of the form `  Executable tests/steps.rs (target/debug/deps/steps-0123)`.
fn programs_in(text: &str) -> Vec<PathBuf> {
    let lines = text.lines().filter(|line| line.trim_start().starts_with("Executable "));
    let paths = lines.filter_map(|line| line.rsplit_once('(')?.1.strip_suffix(')'));
    paths.map(|path| paths::root().join(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_what_cargo_says() {
        let text = "   Compiling a v0.1.0\n  Executable unittests src/lib.rs (target/debug/deps/a-1)\n  \
                    Executable tests/b.rs (/t/debug/deps/b-2)\n";
        let found = programs_in(text);
        assert_eq!(found, [paths::root().join("target/debug/deps/a-1"), PathBuf::from("/t/debug/deps/b-2")]);
    }
}
