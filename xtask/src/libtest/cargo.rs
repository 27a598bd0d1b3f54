//! Runs `cargo test`, and tests that fail in it once more.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use super::{PROGRAM, Reader, TIMED, UNSTABLE};
use crate::build::{self, TARGET};
use crate::progress;
use crate::results::{Failure, Results};
use crate::retry::{self, Attempt};

/// Environment variable with the path of the only test program that is to run.
const ONLY: &str = "NERITE_TEST_ONLY";

/// A way of running `cargo test`.
#[derive(Clone, Copy)]
pub(crate) struct Tests<'a> {
    /// Makes the command, without the options that go to the test programs.
    pub(crate) command: &'a dyn Fn() -> Command,
    /// `true` for tests in documentation: rustdoc runs these, and takes no runner and no unstable
    /// options.
    pub(crate) documentation: bool,
    /// `true` if tests that need a KVM, or root, are run later, and so do not count as skipped.
    pub(crate) later: bool,
    /// Further options for the test programs.
    pub(crate) options: &'a [&'a str],
}

/// A setting of cargo's: a small program between cargo and each test program, which says on
/// standard output which one runs, and allows it unstable options.
fn runner() -> String {
    let (name, value) = UNSTABLE;
    let script = format!(
        "[ -z \"${ONLY}\" ] || [ \"${ONLY}\" = \"$1\" ] || exit 0; echo \"{PROGRAM}$1\"; {name}={value} exec \"$@\""
    );
    format!("target.{TARGET}.runner={:?}", ["sh", "-c", &script, "sh"])
}

/// Builds the tests; cargo shows how far it is.
fn build(tests: Tests<'_>) -> Result<()> {
    if tests.documentation {
        Ok(())
    } else {
        build::run((tests.command)().arg("--no-run"), "the tests")
    }
}

/// Builds and runs the tests, shows what they say, and runs those that fail once more, each in a
/// process of its own.
pub(crate) fn run(tests: Tests<'_>) -> Result<Results> {
    build(tests)?;
    let (reader, good) = once(tests, None)?;
    reader.skips().iter().for_each(|line| progress::print(line));
    let mut results: Results = reader.summary.into();
    results.times = reader.times;
    if !good && reader.failed.is_empty() {
        let what = "it did not get as far as running every test";
        progress::print(&format!("FAIL cargo test: {what}"));
        results += Results::failed(Failure::new("cargo test", what));
    }
    // They count when they have been run again.
    results.summary.failed = results.summary.failed.saturating_sub(reader.failed.len());
    let (failures, places): (Vec<Failure>, Vec<(String, String)>) = reader
        .failed
        .into_iter()
        .map(|failed| (failed.failure, (failed.path, failed.test)))
        .unzip();
    failures.iter().for_each(retry::announce);
    results += retry::again(&failures, &mut |index| {
        let only = places.get(index).context("no such test")?;
        let start = Instant::now();
        let (reader, good) = once(tests, Some(only))?;
        // A name that no longer finds its test has passed nothing.
        let passed = good && reader.summary.passed == 1;
        let output =
            reader.failed.into_iter().map(|failed| failed.failure.output).collect::<String>();
        let output =
            if passed || !output.is_empty() { output } else { "it was not found again".to_owned() };
        let time = reader.times.first().map_or_else(|| start.elapsed(), |(_, time)| *time);
        Ok(Attempt { passed, output, time })
    })?;
    Ok(results)
}

/// Runs the tests, or only the one that is named by its program and its name. Returns what was read
/// and whether cargo was content.
fn once(tests: Tests<'_>, only: Option<&(String, String)>) -> Result<(Reader, bool)> {
    let mut command = (tests.command)();
    if !tests.documentation {
        command.arg("--config").arg(runner());
    }
    command.arg("--").args(if tests.documentation { &[][..] } else { &TIMED[..] });
    command.args(tests.options);
    if let Some((path, test)) = only {
        command.args(["--exact", test]).env(ONLY, path);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let errors = thread::spawn(move || {
        let mut reader = Reader::default();
        each_line(stderr, |line| {
            if let Some(text) = reader.error_line(line) {
                progress::tell(&text);
            }
        });
        reader.summary.skipped
    });
    let mut reader = Reader { later: tests.later, ..Reader::default() };
    each_line(stdout, |line| {
        if let Some(text) = reader.line(line) {
            progress::print(&text);
        }
    });
    let skipped = errors.join().unwrap_or(0);
    reader.summary.passed = reader.summary.passed.saturating_sub(skipped);
    reader.summary.skipped += skipped;
    let status = child.wait().context("cannot wait for cargo")?;
    Ok((reader, status.success()))
}

fn each_line(from: Option<impl Read>, mut take: impl FnMut(&str)) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
        take(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::job::Summary;

    const TESTS: &str = r#"
#[test] fn good() {}
#[test] fn bad() { panic!("so bad"); }
#[test] #[ignore = "needs a KVM"] fn later() {}
#[test] fn flaky() {
    let seen = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("seen");
    assert!(std::fs::File::create_new(seen).is_err(), "the first time");
}
"#;

    fn package(folder: &Path) -> impl Fn() -> Command {
        fs::create_dir_all(folder.join("src")).unwrap();
        let manifest = "[package]\nname = \"p-q\"\nedition = \"2024\"\n[workspace]\n";
        fs::write(folder.join("Cargo.toml"), manifest).unwrap();
        fs::write(folder.join("src/lib.rs"), TESTS).unwrap();
        let folder = folder.to_owned();
        move || {
            let mut command = crate::build::cargo();
            command.args(["test", "--offline", "--lib", "--target-dir"]).arg(folder.join("target"));
            command.current_dir(&folder);
            command
        }
    }

    #[test]
    fn a_test_that_fails_once_is_flaky() {
        let folder = tempfile::tempdir().unwrap();
        let command = package(folder.path());
        let results =
            run(Tests { command: &command, documentation: false, later: true, options: &[] })
                .unwrap();
        assert_eq!(results.summary, Summary { passed: 2, failed: 1, skipped: 0 });
        let [flake] = results.flaky.as_slice() else { panic!("{:?}", results.flaky) };
        assert_eq!(flake.name, "p_q: flaky");
        assert!(flake.failed.contains("the first time"), "{}", flake.failed);
        assert!(results.times.iter().any(|(name, _)| name == "p_q: good"));
    }
}
