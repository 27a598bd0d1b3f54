//! Runs the test programs of the crates that use KVM where KVM is real: on a host without, that is
//! in the lab. Those of their tests that need one are ignored in a plain `cargo test`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::build::{self, cargo};
use crate::job::{Ending, Job, Outcome, Summary};
use crate::libtest::{LATER, Reader, TIMED, UNSTABLE, program_name};
use crate::platform::{Platform, Runner};
use crate::repeat::Repeat;
use crate::results::{Failure, Results};
use crate::retry;
use crate::rounds::{self, Single};
use crate::{
    debugger, gdb_from_host, goes_on, guest_tests, kernels, paths, progress, report, style,
};

/// The folders of the packages whose tests use KVM.
const FOLDERS: [&str; 3] = ["crates/kvm", "crates/machine", "vmm"];
/// Seconds for one test program.
const TIMEOUT: u64 = 600;
/// Variable with the number of times that a busy machine is paused; passed on to the tests.
const PAUSES: &str = "NERITE_TEST_PAUSES";

/// `cargo xtask test-host`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only test programs with this text in their name, such as gdb
    filter: Option<String>,
    /// Run only tests with this text in their name
    #[arg(long, value_name = "NAME")]
    test: Option<String>,
    #[command(flatten)]
    repeat: Repeat,
}

/// The tests that are wanted: texts in the names of programs and of tests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    program: &'a str,
    test: &'a str,
}

/// Runs them and prints the closing lines; the status is 1 if one failed.
pub(crate) fn main(args: &Args) -> Result<i32> {
    let runner = Runner { repeat: args.repeat, ..guest_tests::runner(Platform::choose()?, 1) };
    let filter = Filter {
        program: args.filter.as_deref().unwrap_or_default(),
        test: args.test.as_deref().unwrap_or_default(),
    };
    let _load = args.repeat.load();
    Ok(run(&runner, filter)?.close())
}

/// Builds the test programs and runs them where `runner` runs guests.
pub(crate) fn run(runner: &Runner, filter: Filter<'_>) -> Result<Results> {
    let vmm = build::vmm_for_tests()?;
    let mut programs = list()?;
    programs.retain(|program| name_of(program).contains(filter.program));
    let mut results = Results::default();
    let is_single = filter.test.is_empty() && !runner.repeat.is_wanted();
    if runner.platform == Platform::Lab && is_single && gdb_from_host::NAME.contains(filter.program)
    {
        results += gdb_from_host::check(&vmm);
        if programs.is_empty() {
            return Ok(results);
        }
    }
    ensure!(
        !programs.is_empty(),
        "no test program that uses KVM has \"{}\" in its name",
        filter.program
    );
    // Those with much to do first, or one lab is left with them at the end.
    programs.sort_by_cached_key(|program| Reverse(tests_in(program, filter.test)));
    programs.retain(|program| tests_in(program, filter.test) > 0);
    ensure!(!programs.is_empty(), "no test has \"{}\" in its name", filter.test);
    let make = Maker::new(vmm, filter.test)?;
    let jobs: Vec<Job> = programs.iter().map(|program| make.job(program)).collect();
    if runner.repeat.is_wanted() {
        return rounds::run(runner, &jobs, &|index, outcome| {
            jobs.get(index).map_or_else(Vec::new, |job| singles(job, outcome))
        });
    }
    let mut failed = Vec::new();
    runner.run(&jobs, &mut |index, outcome| {
        let (Some(job), Some(program)) = (jobs.get(index), programs.get(index)) else { return };
        let reader = read(job, outcome);
        results.times.extend(reader.times);
        let summary = reader.summary;
        // Those that failed count when they have been run again.
        results.summary += Summary { failed: 0, ..summary };
        let seconds = outcome.time.as_secs_f64();
        let good = outcome.ending == Ending::Exited(0);
        let word = if good { "ok  " } else { "fail" };
        progress::print(&format!("{word} {}: {summary} ({seconds:.1} s)", job.name));
        if good {
            return;
        }
        if reader.failed.is_empty() {
            // It did not get as far as naming one.
            let output = report::text(job, outcome, &[outcome.ending.to_string()]);
            failed.push((job.clone(), Failure::new(&job.name, output)));
        }
        for one in reader.failed {
            failed.push((make.again(program, &one.test), one.failure));
        }
    })?;
    failed.iter().for_each(|(_, failure)| retry::announce(failure));
    results += retry::jobs_again(runner, failed, &|_, outcome| match &outcome.ending {
        Ending::Exited(0) => Vec::new(),
        other => vec![other.to_string()],
    })?;
    Ok(results)
}

/// Makes jobs of test programs.
struct Maker<'a> {
    vmm: PathBuf,
    gdb: PathBuf,
    debugged: PathBuf,
    flood: PathBuf,
    test: &'a str,
}

impl<'a> Maker<'a> {
    /// Gets together what the programs need besides themselves.
    fn new(vmm: PathBuf, test: &'a str) -> Result<Self> {
        Ok(Self {
            vmm,
            gdb: debugger::get()?,
            debugged: kernels::build_one("debugged")?,
            flood: kernels::build_one("flood-sums")?,
            test,
        })
    }

    /// All of a program's tests, or those of the filter.
    fn job(&self, program: &Path) -> Job {
        let mut command = vec![program.display().to_string(), "--include-ignored".to_owned()];
        command.extend(TIMED.map(str::to_owned));
        command.extend((!self.test.is_empty()).then(|| self.test.to_owned()));
        let files = [&self.vmm, &self.gdb, &self.debugged, &self.flood].map(Clone::clone);
        let named = [
            ("NERITE_TEST_GDB", &self.gdb),
            ("NERITE_TEST_DEBUGGED", &self.debugged),
            ("NERITE_TEST_FLOOD_SUMS", &self.flood),
        ];
        let mut env: BTreeMap<String, String> =
            named.map(|(name, path)| (name.to_owned(), path.display().to_string())).into();
        env.extend(goes_on::count());
        env.extend(std::env::var(PAUSES).ok().map(|count| (PAUSES.to_owned(), count)));
        env.insert(UNSTABLE.0.to_owned(), UNSTABLE.1.to_owned());
        Job {
            name: name_of(program),
            command,
            own_folder: true,
            timeout: TIMEOUT,
            files: [vec![program.to_owned()], files.to_vec()].concat(),
            env,
            ..Job::default()
        }
    }

    /// One test of a program.
    fn again(&self, program: &Path, test: &str) -> Job {
        let mut job = self.job(program);
        job.command.truncate(1);
        job.command.extend(["--include-ignored", "--exact", test].map(str::to_owned));
        job
    }
}

/// Reads what a program said of its tests; its standard error is printed.
fn read(job: &Job, outcome: &Outcome) -> Reader {
    let mut reader = Reader::of(job.command.first().map_or("", |program| program));
    String::from_utf8_lossy(&outcome.stdout).lines().for_each(|line| {
        reader.line(line);
    });
    for text in
        String::from_utf8_lossy(&outcome.stderr).lines().filter_map(|line| reader.error_line(line))
    {
        progress::print(&text);
    }
    reader
}

/// The tests that a program ran. One that ended early is a test that failed.
fn singles(job: &Job, outcome: &Outcome) -> Vec<Single> {
    let reader = read(job, outcome);
    let failed = |name: &str| {
        let found = reader.failed.iter().find(|failed| failed.failure.name == name);
        found.map(|failed| failed.failure.output.clone())
    };
    let single = |(name, time): &(String, Duration)| Single {
        name: name.clone(),
        time: *time,
        failed: failed(name),
    };
    let mut singles: Vec<Single> = reader.times.iter().map(single).collect();
    if outcome.ending != Ending::Exited(0) && reader.failed.is_empty() {
        let output = report::text(job, outcome, &[outcome.ending.to_string()]);
        singles.push(Single { name: job.name.clone(), time: outcome.time, failed: Some(output) });
    }
    singles
}

/// Number of tests with this text in their name in a program, as it says itself.
fn tests_in(program: &Path, test: &str) -> usize {
    let mut command = Command::new(program);
    command.args(["--list", "--format", "terse"]).args((!test.is_empty()).then_some(test));
    let listing = command.output();
    // One that cannot even list its tests fails when it is run.
    listing.map_or(0, |listing| String::from_utf8_lossy(&listing.stdout).lines().count())
}

/// The program's name, without the number that cargo puts behind it.
fn name_of(program: &Path) -> String {
    format!("tests of {}", program_name(&program.to_string_lossy()))
}

/// Paths of the test programs that use KVM.
///
/// All of the workspace's, as `cargo test --workspace` does: with fewer packages, dependencies
/// would have other features, and would be built once more. They were built with the `vmm` that
/// they run; this only asks where they are.
fn list() -> Result<Vec<PathBuf>> {
    let mut command = cargo();
    command.args(["test", "--quiet", "--no-run", "--workspace", "--all-features"]);
    command
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(paths::target());
    let output = command.output().context("cannot run cargo")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the tests do not build:\n{errors}");
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((source, program)) = test_program(line) else { continue };
        if FOLDERS.iter().any(|folder| source.starts_with(paths::root().join(folder)))
            && uses_kvm(&source)?
        {
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

/// Returns `true` if a test program's sources use KVM; unit tests are those of a whole folder.
fn uses_kvm(source: &Path) -> Result<bool> {
    let read = |path: &Path| {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::Ok(text.contains(LATER))
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
        fs::write(&with, "#[ignore = \"needs a KVM\"]").unwrap();
        fs::write(&without, "fn main() {}").unwrap();
        assert!(uses_kvm(&with).unwrap());
        assert!(!uses_kvm(&without).unwrap());
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::copy(with, folder.path().join("src/other.rs")).unwrap();
        assert!(uses_kvm(&folder.path().join("src/lib.rs")).unwrap());
    }
}
