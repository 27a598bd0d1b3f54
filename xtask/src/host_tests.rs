//! Runs the test programs of the crates that use KVM where KVM is real: on a host without, that is in the lab. Those of
//! their tests that need one are ignored in a plain `cargo test`.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::cargo;
use crate::job::{Ending, Job, Summary};
use crate::libtest::{LATER, Reader};
use crate::platform::{Platform, Runner};
use crate::{debugger, kernels, paths, progress, style, test_kernels};

/// The folders of the packages whose tests use KVM.
const FOLDERS: [&str; 3] = ["crates/kvm", "crates/machine", "vmm"];
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
    // Those with much to do first, or one lab is left with them at the end.
    programs.sort_by_cached_key(|program| Reverse(tests_in(program)));
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

/// How many tests a program has, as it says itself.
fn tests_in(program: &Path) -> usize {
    let listing = Command::new(program).args(["--list", "--format", "terse"]).output();
    // One that cannot even list its tests fails when it is run.
    listing.map_or(0, |listing| String::from_utf8_lossy(&listing.stdout).lines().count())
}

/// The program's name, without the number that cargo puts behind it.
fn name_of(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    format!("tests of {}", name.rsplit_once('-').map_or(&*name, |(name, _)| name))
}

/// Builds the test programs and says where those are that use KVM.
///
/// All of the workspace's, as `cargo test --workspace` does: with fewer packages, dependencies would have other features, and
/// would be built once more.
fn build() -> Result<Vec<PathBuf>> {
    let mut command = cargo();
    command.args(["test", "--quiet", "--no-run", "--workspace", "--all-features"]);
    command.args(["--message-format", "json-render-diagnostics", "--target-dir"]).arg(paths::target());
    let output = command.output().context("cannot run cargo")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the tests do not build:\n{errors}");
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((source, program)) = test_program(line) else { continue };
        if FOLDERS.iter().any(|folder| source.starts_with(paths::root().join(folder))) && uses_kvm(&source)? {
            found.push(program);
        }
    }
    ensure!(!found.is_empty(), "no test uses KVM");
    Ok(found)
}

/// The source and the path of a test program, if that is what a line of cargo's is about.
fn test_program(line: &str) -> Option<(PathBuf, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_test = message.pointer("/profile/test")?.as_bool()?;
    let path = |pointer| Some(PathBuf::from(message.pointer(pointer)?.as_str()?));
    is_test.then_some((path("/target/src_path")?, path("/executable")?))
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
        let line = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"src_path":"/w/a.rs"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let found = (PathBuf::from("/w/a.rs"), PathBuf::from("/t/a-1"));
        assert_eq!(test_program(&line(true, r#""/t/a-1""#)), Some(found));
        assert_eq!(test_program(&line(false, r#""/t/a-1""#)), None);
        assert_eq!(test_program(&line(true, "null")), None);
        assert_eq!(test_program("{}"), None);
        assert_eq!(test_program("warning: x"), None);
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
