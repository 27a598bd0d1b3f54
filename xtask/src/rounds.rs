//! Runs each test many times, and prints a table of how often each failed.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Result;

use crate::job::{Job, Outcome, Summary};
use crate::lab::Queue;
use crate::platform::Runner;
use crate::progress;
use crate::results::{Results, indented};

/// One run of one test.
#[derive(Debug)]
pub(crate) struct Single {
    pub(crate) name: String,
    pub(crate) time: Duration,
    /// Output, with what was wrong, if it failed.
    pub(crate) failed: Option<String>,
}

/// Runs the jobs for the number of rounds in `runner`, prints a line for each test and then the
/// table. `judge` says which tests the job of this index ran. None is run again because it failed.
pub(crate) fn run(
    runner: &Runner,
    jobs: &[Job],
    judge: &dyn Fn(usize, &Outcome) -> Vec<Single>,
) -> Result<Results> {
    let repeat = runner.repeat;
    let queue = Queue::repeated(jobs.len(), repeat.rounds.map_or(1, NonZeroUsize::get));
    let mut table = Table::default();
    let freezes = runner.run_queue(jobs, &queue, &mut |index, outcome| {
        for single in judge(index, outcome) {
            let (name, seconds) = (&single.name, single.time.as_secs_f64());
            match &single.failed {
                None => progress::print(&format!("ok   {name} ({seconds:.1} s)")),
                Some(output) => {
                    progress::print(&format!("FAIL {name} ({seconds:.1} s)\n{}", indented(output)));
                    if repeat.until_fail {
                        queue.clear();
                    }
                }
            }
            table.add(single);
        }
    })?;
    if freezes > 0 {
        progress::say(&format!("the lab froze {freezes} times and was started again"));
    }
    progress::print(&table.print());
    Ok(table.summary().into())
}

/// Runs of tests, by test.
#[derive(Debug, Default)]
struct Table(Vec<Row>);

#[derive(Debug)]
struct Row {
    name: String,
    failed: usize,
    times: Vec<Duration>,
}

impl Table {
    fn add(&mut self, single: Single) {
        let failed = usize::from(single.failed.is_some());
        match self.0.iter_mut().find(|row| row.name == single.name) {
            Some(row) => {
                row.failed += failed;
                row.times.push(single.time);
            }
            None => self.0.push(Row { name: single.name, failed, times: vec![single.time] }),
        }
    }

    fn summary(&self) -> Summary {
        let failed = self.0.iter().map(|row| row.failed).sum();
        let runs: usize = self.0.iter().map(|row| row.times.len()).sum();
        Summary { passed: runs.saturating_sub(failed), failed, skipped: 0 }
    }

    /// Those that failed most often come first, then in the order in which they ran.
    fn print(&self) -> String {
        let mut rows: Vec<&Row> = self.0.iter().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.failed));
        let mut text = format!(
            "{:>6} {:>6} {:>8} {:>8} {:>8}  test (times in seconds)",
            "failed", "runs", "min", "median", "max"
        );
        for row in rows {
            let mut times = row.times.clone();
            times.sort_unstable();
            let at = |index: usize| times.get(index).map_or(0.0, Duration::as_secs_f64);
            let (least, median, most) =
                (at(0), at(times.len() / 2), at(times.len().saturating_sub(1)));
            let (failed, runs, name) = (row.failed, times.len(), &row.name);
            let _ =
                write!(text, "\n{failed:6} {runs:6} {least:8.2} {median:8.2} {most:8.2}  {name}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Ending;
    use crate::lab::Machine;
    use crate::platform::Platform;
    use crate::repeat::Repeat;

    fn runner(rounds: usize, until_fail: bool) -> Runner {
        let repeat = Repeat { rounds: NonZeroUsize::new(rounds), until_fail, ..Repeat::default() };
        Runner { platform: Platform::Hardware, workers: 1, machine: Machine::default(), repeat }
    }

    /// Runs a job that always passes and one that fails in its second run.
    fn run_rounds(rounds: usize, until_fail: bool) -> Results {
        let folder = tempfile::tempdir().unwrap();
        let job = |script: &str| Job {
            name: script.to_owned(),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            dir: Some(folder.path().to_owned()),
            timeout: 20,
            ..Job::default()
        };
        let jobs = [job("true"), job("echo >>runs; [ $(wc -l <runs) != 2 ]")];
        run(&runner(rounds, until_fail), &jobs, &|index, outcome| {
            let failed = (outcome.ending != Ending::Exited(0)).then(String::new);
            vec![Single { name: jobs[index].name.clone(), time: outcome.time, failed }]
        })
        .unwrap()
    }

    #[test]
    fn each_run_counts() {
        let results = run_rounds(4, false);
        assert_eq!(results.summary, Summary { passed: 7, failed: 1, skipped: 0 });
        assert!(results.flaky.is_empty());
    }

    #[test]
    fn the_first_failure_can_be_the_last_run() {
        assert_eq!(run_rounds(1000, true).summary.failed, 1);
    }

    #[test]
    fn the_table_begins_with_what_failed() {
        let mut table = Table::default();
        for (name, seconds, failed) in
            [("a", 1, false), ("b", 3, false), ("b", 1, true), ("b", 2, false)]
        {
            let failed = failed.then(String::new);
            table.add(Single { name: name.to_owned(), time: Duration::from_secs(seconds), failed });
        }
        let text = table.print();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["1", "3", "1.00", "2.00", "3.00", "b"]);
        assert_eq!(lines[2], ["0", "1", "1.00", "1.00", "1.00", "a"]);
    }
}
