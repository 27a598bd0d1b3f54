//! Reads what test programs of Rust's own harness print, so that their tests can be counted, timed
//! and run again.

pub(crate) mod cargo;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::job::Summary;
use crate::results::Failure;

/// Text that a test which finds nothing to run on writes to standard error, before its name and the
/// reason.
const SKIPPED: &str = "skipped: ";

/// Reason of ignored tests that `host_tests` runs where there is a KVM.
pub(crate) const LATER: &str = "needs a KVM";
/// Reasons of ignored tests that `containers` runs where it can.
const CONTAINERS: [&str; 2] = ["needs root and cgroups", "needs root and container engines"];
/// Reason of ignored functions that are no tests: processes that tests start.
const PART: &str = "the other tests start it";

/// Options of a test program that make it print the time of each test. They are unstable, which
/// [`UNSTABLE`] allows.
pub(crate) const TIMED: [&str; 2] = ["-Zunstable-options", "--report-time"];
/// Environment variable, and its value, with which a test program takes options that are not
/// stable. It is not for cargo, which would build everything in another way.
pub(crate) const UNSTABLE: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");
/// Text before the path of a test program in a line that says which one runs next.
const PROGRAM: &str = "@program ";

/// A test that failed, and how to find it.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Path of the test program, as it was announced; empty for tests in documentation.
    pub(crate) path: String,
    /// Name of the test in its program.
    pub(crate) test: String,
    pub(crate) failure: Failure,
}

/// Follows the standard output of test programs and keeps what is worth printing.
#[derive(Default)]
pub(crate) struct Reader {
    /// So far.
    pub(crate) summary: Summary,
    /// Tests that failed, with their output.
    pub(crate) failed: Vec<Failed>,
    /// Names and times of tests.
    pub(crate) times: Vec<(String, Duration)>,
    /// Reasons of ignored tests, with their names.
    pub(crate) ignored: BTreeMap<String, Vec<String>>,
    /// `true` if tests that need a KVM are run later, and so are not skipped.
    pub(crate) later: bool,
    /// Path of the program that runs now.
    path: String,
    /// Number of ignored tests in the program that runs now that do not count as skipped.
    deferred: usize,
    /// `true` between "failures:" and the end of the program.
    in_failures: bool,
    /// Index of the failed test whose output is being read.
    captured: Option<usize>,
}

impl Reader {
    /// A reader of one program's output.
    pub(crate) fn of(path: &str) -> Self {
        Self { path: path.to_owned(), ..Self::default() }
    }

    /// Takes in one line; gives back what to print of it.
    pub(crate) fn line(&mut self, line: &str) -> Option<String> {
        if let Some(path) = line.strip_prefix(PROGRAM) {
            self.path = path.to_owned();
            return None;
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            (self.in_failures, self.captured) = (false, None);
            let mut counts = counts_in(counts);
            counts.skipped = counts.skipped.saturating_sub(std::mem::take(&mut self.deferred));
            self.summary += counts;
            return None;
        }
        if line == "failures:" {
            (self.in_failures, self.captured) = (true, None);
            return None;
        }
        if self.in_failures {
            self.failure_line(line);
            return None;
        }
        if let Some((name, verdict)) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        {
            return self.verdict(name.trim_end_matches(" - should panic"), verdict);
        }
        let noise = line.is_empty() || (line.starts_with("running ") && line.contains(" test"));
        (!noise).then(|| line.to_owned())
    }

    /// A line such as `a::b ... ok <0.123s>`.
    fn verdict(&mut self, name: &str, verdict: &str) -> Option<String> {
        let full = self.full_name(name);
        if let Some(reason) = verdict.strip_prefix("ignored") {
            let reason = reason.trim_start_matches(", ").to_owned();
            let is_part = reason == PART;
            self.deferred += usize::from(is_part || self.later && is_later(&reason));
            if is_part {
                return None;
            }
            self.ignored.entry(reason).or_default().push(full);
            return None;
        }
        let (verdict, time) = timed(verdict);
        self.times.extend(time.map(|time| (full.clone(), time)));
        if verdict != "FAILED" {
            return None;
        }
        let failure = Failure::new(&full, "");
        self.failed.push(Failed { path: self.path.clone(), test: name.to_owned(), failure });
        Some(format!("fail {full}"))
    }

    /// A line among the outputs of failed tests, each under `---- NAME stdout ----`.
    fn failure_line(&mut self, line: &str) {
        let head = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let Some(name) = head {
            self.captured = self
                .failed
                .iter()
                .position(|failed| failed.test == name && failed.path == self.path);
        } else if let Some(failed) = self.captured.and_then(|index| self.failed.get_mut(index)) {
            failed.failure.output.push_str(line);
            failed.failure.output.push('\n');
        }
    }

    /// A test's name, the same wherever its program is run.
    fn full_name(&self, test: &str) -> String {
        if self.path.is_empty() {
            test.to_owned()
        } else {
            format!("{}: {test}", program_name(&self.path))
        }
    }

    /// Takes in a line of standard error: a test that says there that it was skipped, with its name
    /// and the reason, counts as such, not as passed.
    pub(crate) fn error_line(&mut self, line: &str) -> Option<String> {
        if let Some(reason) = line.trim_start().strip_prefix(SKIPPED) {
            self.summary.passed = self.summary.passed.saturating_sub(1);
            self.summary.skipped += 1;
            return Some(format!("SKIP {reason}"));
        }
        Some(line.to_owned())
    }

    /// A line for each reason why tests were ignored.
    pub(crate) fn skips(&self) -> Vec<String> {
        let line = |(reason, names): (&String, &Vec<String>)| match names.as_slice() {
            _ if self.later && is_later(reason) => {
                format!("{} tests run later: {reason}", names.len())
            }
            [name] => {
                format!("SKIP {name}: {}", if reason.is_empty() { "ignored" } else { reason })
            }
            _ => format!("SKIP {} tests: {reason}", names.len()),
        };
        self.ignored.iter().map(line).collect()
    }
}

/// `true` if ignored tests of this reason are run by another group.
fn is_later(reason: &str) -> bool {
    reason == LATER || CONTAINERS.contains(&reason)
}

/// A test program's name, without its folder and the number that cargo puts behind it.
pub(crate) fn program_name(path: &str) -> &str {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    name.rsplit_once('-').map_or(name, |(name, _)| name)
}

/// Takes the time off a verdict such as `ok <0.123s>`.
fn timed(verdict: &str) -> (&str, Option<Duration>) {
    let time = |rest: &str| rest.strip_suffix("s>")?.parse::<f64>().ok();
    match verdict.split_once(" <") {
        Some((word, rest)) => {
            (word, time(rest).and_then(|time| Duration::try_from_secs_f64(time).ok()))
        }
        None => (verdict, None),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut reader: Reader, text: &str) -> (Reader, Vec<String>) {
        let shown = text.lines().filter_map(|line| reader.line(line)).collect();
        (reader, shown)
    }

    #[test]
    fn results_are_added_up() {
        let text = "@program /t/deps/one-1f\n\nrunning 3 tests\ntest a::b ... ok <0.250s>\ntest c ... FAILED <1.500s>\n\
                    test d ... ignored, needs a tape drive\n\
                    noise\n\nfailures:\n\n---- c stdout ----\n\nthread 'c' panicked\n\n\nfailures:\n    c\n\n\
                    test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.1s\n\
                    @program /t/deps/two_three-2f\nrunning 1 test\ntest x.rs - f (line 3) ... ok\n\
                    test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        let (reader, shown) = read(Reader::default(), text);
        assert_eq!(shown, ["fail one: c", "noise"]);
        assert_eq!(reader.summary, Summary { passed: 13, failed: 1, skipped: 1 });
        assert_eq!(reader.skips(), ["SKIP one: d: needs a tape drive"]);
        let [failed] = reader.failed.as_slice() else { panic!("{:?}", reader.failed) };
        assert_eq!((failed.path.as_str(), failed.test.as_str()), ("/t/deps/one-1f", "c"));
        assert_eq!(failed.failure.output.trim(), "thread 'c' panicked");
        let times = [("one: a::b".to_owned(), 250), ("one: c".to_owned(), 1500)];
        assert_eq!(reader.times, times.map(|(name, time)| (name, Duration::from_millis(time))));
    }

    #[test]
    fn tests_that_run_later_are_not_skipped() {
        let text = "test p ... ignored, the other tests start it\ntest a ... ignored, needs a KVM\ntest b ... ignored, broken\ntest c ... ignored, needs a KVM\n\
                    test result: ok. 0 passed; 0 failed; 4 ignored; 0 measured; 0 filtered out";
        let (reader, _) = read(Reader { later: true, ..Reader::default() }, text);
        assert_eq!(reader.summary.skipped, 1);
        assert_eq!(reader.skips(), ["SKIP b: broken", "2 tests run later: needs a KVM"]);
        let (reader, _) = read(Reader::default(), text);
        assert_eq!(reader.summary.skipped, 3);
        assert_eq!(reader.skips(), ["SKIP b: broken", "SKIP 2 tests: needs a KVM"]);
    }

    #[test]
    fn a_test_that_found_nothing_to_run_on_did_not_pass() {
        let mut reader = Reader::default();
        reader.line("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        let line = reader.error_line("skipped: module::test: no KVM");
        assert_eq!(line.as_deref(), Some("SKIP module::test: no KVM"));
        assert_eq!(reader.error_line("   Compiling x").as_deref(), Some("   Compiling x"));
        assert_eq!(reader.summary, Summary { passed: 1, failed: 0, skipped: 1 });
    }

    #[test]
    fn a_test_that_should_panic_has_its_plain_name() {
        let text =
            "test a - should panic ... FAILED\n\nfailures:\n\n---- a stdout ----\nit did not\n";
        let (reader, _) = read(Reader::of("/t/p-1"), text);
        assert_eq!(reader.failed[0].test, "a");
        assert_eq!(reader.failed[0].failure.output, "it did not\n");
    }
}
