//! Runs the test programs of the crates that use KVM where KVM is real: on a host without, that is in the lab. Those of
//! their tests that need one are ignored in a plain `cargo test`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::build::cargo;
use crate::job::{Ending, Job, Summary};
use crate::libtest::{LATER, Reader};
use crate::platform::{Platform, Runner};
use crate::{debugger, kernels, paths, progress, style, test_kernels};

/// The packages whose tests use KVM, and their folders.
const PACKAGES: [(&str, &str); 3] =
    [("nerite-kvm", "crates/kvm"), ("nerite-machine", "crates/machine"), ("nerite-vmm", "vmm")];
/// What stands in the sources of a test that uses KVM.
const SIGNS: [&str; 2] = [LATER, "has_kvm"];
/// Seconds for one test program.
const TIMEOUT: u64 = 600;
/// How often a busy machine is paused; passed on to the tests.
const PAUSES: &str = "NERITE_TEST_PAUSES";

/// `cargo xtask test-host`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only test programs with this text in their name, such as gdb
    filter: Option<String>,
}

/// Runs them and prints the closing line; the status is 1 if one failed.
pub(crate) fn main(args: &Args) -> Result<i32> {
    let runner = test_kernels::runner(Platform::choose(), 1);
    let summary = run(&runner, args.filter.as_deref().unwrap_or_default())?;
    progress::print(&summary.to_string());
    Ok(i32::from(summary.failed > 0))
}

/// Builds the test programs and runs them where `runner` runs guests.
pub(crate) fn run(runner: &Runner, filter: &str) -> Result<Summary> {
    let mut programs = build()?;
    programs.retain(|program| name_of(program).contains(filter));
    let vmm = paths::target().join("debug/vmm");
    let gdb = debugger::get()?;
    let (debugged, flood) = (kernels::build_one("debugged")?, kernels::build_one("flood-sums")?);
    let job = |program: &PathBuf| Job {
        name: name_of(program),
        command: vec![program.display().to_string(), "--include-ignored".to_owned()],
        dir: Some("/tmp".into()),
        timeout: TIMEOUT,
        files: vec![program.clone(), vmm.clone(), gdb.clone(), debugged.clone(), flood.clone()],
        env: [
            ("NERITE_TEST_GDB", &gdb),
            ("NERITE_TEST_DEBUGGED", &debugged),
            ("NERITE_TEST_FLOOD_SUMS", &flood),
        ]
        .map(|(name, path)| (name.to_owned(), path.display().to_string()))
        .into_iter()
        .chain(std::env::var(PAUSES).ok().map(|count| (PAUSES.to_owned(), count)))
        .collect(),
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
            let seconds = outcome.time.as_secs_f64();
            progress::print(&format!("ok   {}: {} ({seconds:.1} s)", job.name, reader.summary));
        } else {
            let wrong = [format!("expected exit code 0, got: {}", outcome.ending)];
            test_kernels::print_verdict(job, outcome, &wrong);
            reader.summary.failed = reader.summary.failed.max(1);
        }
        total += reader.summary;
    })?;
    Ok(total)
}

/// The program's name, without the number that cargo puts behind it.
fn name_of(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    format!("tests of {}", name.rsplit_once('-').map_or(&*name, |(name, _)| name))
}

/// Builds the test programs and says where those are that use KVM.
fn build() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (package, folder) in PACKAGES {
        let mut command = cargo();
        command.args(["test", "--no-run", "--all-features", "--package", package, "--target-dir"]);
        let output = command.arg(paths::target()).output().context("cannot run cargo")?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the tests of {package} do not build:\n{text}");
        for (source, program) in programs_in(&text) {
            if uses_kvm(&paths::root().join(folder).join(source))? {
                found.push(program);
            }
        }
    }
    ensure!(!found.is_empty(), "no test uses KVM");
    Ok(found)
}

/// Reads lines of the form `  Executable tests/steps.rs (target/debug/deps/steps-0123)`: source and program.
fn programs_in(text: &str) -> Vec<(&str, PathBuf)> {
    let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("Executable "));
    let pairs = lines.filter_map(|line| line.strip_suffix(')')?.rsplit_once(" ("));
    pairs.map(|(source, path)| (source.trim_start_matches("unittests "), paths::root().join(path))).collect()
}

/// Whether a test program is made of sources that use KVM; unit tests are those of a whole folder.
fn uses_kvm(source: &Path) -> Result<bool> {
    let read = |path: &Path| {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::Ok(SIGNS.iter().any(|sign| text.contains(sign)))
    };
    match source.parent() {
        Some(folder) if folder.ends_with("src") => {
            let mut files = Vec::new();
            style::collect(folder, &mut files)?;
            Ok(files.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?.contains(&true))
        }
        _ => read(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_what_cargo_says() {
        let text = "   Compiling a v0.1.0\n  Executable unittests src/lib.rs (target/debug/deps/a-1)\n  \
                    Executable tests/b.rs (/t/debug/deps/b-2)\n";
        let found = programs_in(text);
        let first = paths::root().join("target/debug/deps/a-1");
        assert_eq!(found, [("src/lib.rs", first), ("tests/b.rs", PathBuf::from("/t/debug/deps/b-2"))]);
    }

    #[test]
    fn tests_that_use_kvm_are_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let (with, without) = (folder.path().join("a.rs"), folder.path().join("b.rs"));
        fs::write(&with, "if !has_kvm() {").unwrap();
        fs::write(&without, "fn main() {}").unwrap();
        assert!(uses_kvm(&with).unwrap());
        assert!(!uses_kvm(&without).unwrap());
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::copy(with, folder.path().join("src/other.rs")).unwrap();
        assert!(uses_kvm(&folder.path().join("src/lib.rs")).unwrap());
    }
}
