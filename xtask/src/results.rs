//! Results of a run of tests: counts, tests that passed only when they were run again, and times.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::job::Summary;
use crate::progress;

/// Number of tests named in the list of the slowest.
const SLOWEST: usize = 20;
/// Tests that are faster than this are not named there.
const SLOW: Duration = Duration::from_millis(500);

/// Lines of a failed test's output that the closing lines repeat; all of it is further up.
const REPEATED: usize = 30;

/// A test that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The same in each group that runs the test.
    pub(crate) name: String,
    /// Output of the run, with what was wrong.
    pub(crate) output: String,
}

impl Failure {
    /// A failure whose output has been printed where it happened.
    pub(crate) fn new(name: impl Into<String>, output: impl Into<String>) -> Self {
        Self { name: name.into(), output: output.into() }
    }
}

/// A test that failed and, in a fresh state, passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flake {
    /// The same in each group that runs the test.
    pub(crate) name: String,
    /// Output of the run that failed.
    pub(crate) failed: String,
    /// Output of the run that passed.
    pub(crate) passed: String,
}

/// Results of a group of tests, or of all of them.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// Counts; a flaky test counts as passed.
    pub(crate) summary: Summary,
    /// Tests that failed, for the closing lines.
    pub(crate) failures: Vec<Failure>,
    /// Flaky tests, once for each time.
    pub(crate) flaky: Vec<Flake>,
    /// Names and times of single tests.
    pub(crate) times: Vec<(String, Duration)>,
}

impl Results {
    /// One check that passed.
    pub(crate) fn passed() -> Self {
        Summary { passed: 1, ..Summary::default() }.into()
    }

    /// One check that failed.
    pub(crate) fn failed(failure: Failure) -> Self {
        let summary = Summary { failed: 1, ..Summary::default() };
        Self { summary, failures: vec![failure], ..Self::default() }
    }

    /// Prints the slowest tests, the flaky and the failed ones and the closing line; returns the
    /// exit status, which is 1 if a test failed or was flaky more than once.
    pub(crate) fn close(self) -> i32 {
        let (text, summary) = self.closing();
        progress::print(text.trim_end());
        i32::from(summary.failed > 0)
    }

    /// Closing lines, and the counts in the last of them.
    fn closing(&self) -> (String, Summary) {
        let mut text = String::new();
        let mut summary = self.summary;
        for line in slowest(&self.times) {
            let _ = writeln!(text, "{line}");
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        self.flaky.iter().for_each(|flake| *counts.entry(&flake.name).or_default() += 1);
        for flake in &self.flaky {
            let _ = writeln!(text, "FLAKY {}", flake.name);
            for (when, output) in [("failed", &flake.failed), ("then passed", &flake.passed)] {
                let _ = writeln!(text, "     it {when}:\n{}", indented(output));
            }
        }
        for failure in &self.failures {
            let _ = writeln!(text, "FAIL {}", failure.name);
            if !failure.output.is_empty() {
                let _ = writeln!(text, "{}", indented(last_lines(&failure.output, REPEATED)));
            }
        }
        for (name, times) in counts.iter().filter(|(_, times)| **times > 1) {
            let _ = writeln!(text, "FAIL {name}: flaky {times} times in one run");
            // Each of them counted as passed.
            summary.passed = summary.passed.saturating_sub(*times);
            summary.failed += times;
        }
        if !counts.is_empty() {
            let names: Vec<&str> = counts.keys().copied().collect();
            let _ = writeln!(text, "{} flaky: {}", names.len(), names.join(", "));
        }
        let _ = writeln!(text, "{summary}");
        (text, summary)
    }
}

impl From<Summary> for Results {
    fn from(summary: Summary) -> Self {
        Self { summary, ..Self::default() }
    }
}

impl std::ops::AddAssign for Results {
    fn add_assign(&mut self, other: Self) {
        self.summary += other.summary;
        self.failures.extend(other.failures);
        self.flaky.extend(other.flaky);
        self.times.extend(other.times);
    }
}

impl std::fmt::Display for Results {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.summary)?;
        match self.flaky.len() {
            0 => Ok(()),
            count => write!(f, ", {count} flaky"),
        }
    }
}

/// Lines that name the slowest tests.
fn slowest(times: &[(String, Duration)]) -> Vec<String> {
    let mut slow: Vec<&(String, Duration)> =
        times.iter().filter(|(_, time)| *time >= SLOW).collect();
    slow.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    slow.truncate(SLOWEST);
    let head = (!slow.is_empty()).then(|| "slowest tests:".to_owned());
    let lines = slow.iter().map(|(name, time)| format!("{:9.1} s  {name}", time.as_secs_f64()));
    head.into_iter().chain(lines).collect()
}

/// At most this many lines from the end of a text.
fn last_lines(text: &str, count: usize) -> &str {
    let text = text.trim_end();
    let start = text.rmatch_indices('\n').nth(count.saturating_sub(1)).map_or(0, |(at, _)| at + 1);
    text.get(start..).unwrap_or(text)
}

/// The text, moved to the right.
pub(crate) fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("       {line}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flake(name: &str) -> Flake {
        Flake { name: name.to_owned(), failed: "bad\nday".to_owned(), passed: "good".to_owned() }
    }

    fn results(flaky: Vec<Flake>) -> Results {
        let summary = Summary { passed: 5, failed: 0, skipped: 1 };
        Results { summary, flaky, ..Results::default() }
    }

    #[test]
    fn the_last_line_has_the_counts() {
        assert_eq!(results(Vec::new()).closing().0, "5 passed, 0 failed, 1 skipped\n");
    }

    #[test]
    fn a_flaky_test_is_named_with_both_outputs() {
        let (text, summary) = results(vec![flake("a")]).closing();
        assert_eq!(summary.failed, 0);
        let expected = "FLAKY a\n     it failed:\n       bad\n       day\n     it then passed:\n       good\n\
                        1 flaky: a\n5 passed, 0 failed, 1 skipped\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_test_that_is_flaky_twice_has_failed() {
        let (text, summary) = results(vec![flake("a"), flake("b"), flake("a")]).closing();
        assert!(text.ends_with(
            "FAIL a: flaky 2 times in one run\n2 flaky: a, b\n3 passed, 2 failed, 1 skipped\n"
        ));
        assert_eq!((summary.passed, summary.failed), (3, 2));
    }

    #[test]
    fn a_failed_test_is_named_with_the_end_of_its_output() {
        let output: String = (1..=40).map(|line| format!("line {line}\n")).collect();
        let (text, _) = Results::failed(Failure::new("a", output)).closing();
        assert!(text.starts_with("FAIL a\n       line 11\n       line 12\n"), "{text}");
        assert!(text.ends_with("       line 40\n0 passed, 1 failed, 0 skipped\n"), "{text}");
        assert_eq!(last_lines("one\ntwo\n", 3), "one\ntwo");
    }

    #[test]
    fn the_slowest_tests_come_first() {
        let times = (0..30).map(|n| (format!("t{n}"), Duration::from_secs(n))).collect();
        let lines = slowest(&Results { times, ..Results::default() }.times);
        assert_eq!(lines.len(), 1 + SLOWEST);
        assert_eq!((lines[1].trim(), lines[20].trim()), ("29.0 s  t29", "10.0 s  t10"));
        assert!(slowest(&[("a".to_owned(), Duration::from_millis(2))]).is_empty());
    }
}
