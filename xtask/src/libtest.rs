//! Reads what `cargo test` prints, so that its tests can be counted with the others.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result};

use crate::job::Summary;
use crate::progress;

/// What a test that finds nothing to run on writes to standard error, before the reason.
const SKIPPED: &str = "skipped: ";

/// Why a test is ignored that `host_tests` runs later, where there is a KVM.
pub(crate) const LATER: &str = "needs a KVM";

/// Follows the standard output of test programs and keeps what is worth printing.
#[derive(Default)]
pub(crate) struct Reader {
    /// So far.
    pub(crate) summary: Summary,
    /// Whether tests that wait for a KVM are run later, and so are not skipped.
    later: bool,
    /// How many of them the program that runs now has named.
    deferred: usize,
}

impl Reader {
    /// Takes in one line; gives back what to print of it.
    pub(crate) fn line(&mut self, line: &str) -> Option<String> {
        if let Some(counts) = line.strip_prefix("test result: ") {
            let mut counts = counts_in(counts);
            counts.skipped = counts.skipped.saturating_sub(std::mem::take(&mut self.deferred));
            self.summary += counts;
            return None;
        }
        if let Some((name, verdict)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) {
            return match verdict.strip_prefix("ignored") {
                Some(reason) if self.later && reason.ends_with(LATER) => {
                    self.deferred += 1;
                    None
                }
                Some(reason) => Some(format!("SKIP {name}{}", reason.replacen(',', ":", 1))),
                None => (verdict == "FAILED").then(|| format!("FAIL {name}")),
            };
        }
        let noise = line.is_empty() || (line.starts_with("running ") && line.contains(" test"));
        (!noise).then(|| line.to_owned())
    }

    /// Takes in a line of standard error: a test that says there that it was skipped counts as such, not as passed.
    pub(crate) fn error_line(&mut self, line: &str) -> Option<String> {
        if let Some(reason) = line.trim_start().strip_prefix(SKIPPED) {
            self.summary.passed = self.summary.passed.saturating_sub(1);
            self.summary.skipped += 1;
            return Some(format!("SKIP a test: {reason}"));
        }
        Some(line.to_owned())
    }
}

/// Reads `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
fn counts_in(text: &str) -> Summary {
    let count = |word: &str| {
        let before = text.split(word).next().filter(|before| before.len() < text.len())?;
        before.trim_end().rsplit(' ').next()?.parse().ok()
    };
    Summary {
        passed: count(" passed").unwrap_or(0),
        failed: count(" failed").unwrap_or(0),
        skipped: count(" ignored").unwrap_or(0),
    }
}

/// Runs `cargo test` as given, shows its progress and failures, and counts its tests. With `later`, those that wait for a
/// KVM do not count: they are run by someone else.
pub(crate) fn run(command: &mut Command, later: bool) -> Result<Summary> {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot run cargo")?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let errors = thread::spawn(move || {
        let mut reader = Reader::default();
        each_line(stderr, |line| {
            if let Some(text) = reader.error_line(line) {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        });
        reader.summary.skipped
    });
    let mut reader = Reader { later, ..Reader::default() };
    each_line(stdout, |line| {
        if let Some(text) = reader.line(line) {
            progress::print(&text);
        }
    });
    let skipped = errors.join().unwrap_or(0);
    let mut summary = reader.summary;
    summary.passed = summary.passed.saturating_sub(skipped);
    summary.skipped += skipped;
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() && summary.failed == 0 {
        progress::print("FAIL cargo test: it did not get as far as running every test");
        summary.failed = 1;
    }
    Ok(summary)
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
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut reader = Reader::default();
        let text = "\nrunning 3 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... ignored, needs a tape drive\n\
                    thread 'c' panicked\n\
                    test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.1s\n\
                    running 1 test\ntest x.rs - f (line 3) ... ok\n\
                    test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        let shown: Vec<String> = text.lines().filter_map(|line| reader.line(line)).collect();
        assert_eq!(shown, ["FAIL c", "SKIP d: needs a tape drive", "thread 'c' panicked"]);
        assert_eq!(reader.summary, Summary { passed: 13, failed: 1, skipped: 1 });
    }

    #[test]
    fn tests_that_run_later_are_not_skipped() {
        let text = "test a ... ignored, needs a KVM\ntest b ... ignored, broken\n\
                    test result: ok. 0 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out";
        let mut reader = Reader { later: true, ..Reader::default() };
        let shown: Vec<String> = text.lines().filter_map(|line| reader.line(line)).collect();
        assert_eq!((shown.len(), reader.summary.skipped), (1, 1));
        let mut reader = Reader::default();
        assert_eq!(text.lines().filter_map(|line| reader.line(line)).count(), 2);
        assert_eq!(reader.summary.skipped, 2);
    }

    #[test]
    fn a_test_that_found_nothing_to_run_on_did_not_pass() {
        let mut reader = Reader::default();
        reader.line("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(reader.error_line("skipped: no KVM").as_deref(), Some("SKIP a test: no KVM"));
        assert_eq!(reader.error_line("   Compiling x").as_deref(), Some("   Compiling x"));
        assert_eq!(reader.summary, Summary { passed: 1, failed: 0, skipped: 1 });
    }
}
