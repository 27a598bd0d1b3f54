//! Failed tests are run once more, each in a fresh state. One that then passes is flaky rather than
//! failed.

use std::time::Duration;

use anyhow::Result;

use crate::job::{Job, Outcome, Summary};
use crate::platform::Runner;
use crate::progress;
use crate::report;
use crate::results::{Failure, Flake, Results, indented};

/// Most failures of a group that may be chance. After more, none is run again.
const MOST: usize = 10;

/// The second run of a test.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) passed: bool,
    /// Output of the run, with what was wrong.
    pub(crate) output: String,
    pub(crate) time: Duration,
}

/// Prints what is known of a failure.
pub(crate) fn announce(failure: &Failure) {
    progress::print(&format!("RETRY {}: it failed\n{}", failure.name, indented(&failure.output)));
}

/// Runs failed tests again; `rerun` does that with the one of this index. Each counts once in the
/// results, as failed or as passed and flaky.
pub(crate) fn again(
    failures: &[Failure],
    rerun: &mut dyn FnMut(usize) -> Result<Attempt>,
) -> Result<Results> {
    let mut results = Results::default();
    for (index, failure) in failures.iter().enumerate() {
        if failures.len() > MOST {
            let count = failures.len();
            progress::print(&format!(
                "FAIL {} (not run again: {count} tests failed)",
                failure.name
            ));
            results += Results::failed(failure.clone());
            continue;
        }
        progress::say(&format!("running {} once more, in a fresh state", failure.name));
        let attempt = rerun(index)?;
        results.times.push((failure.name.clone(), attempt.time));
        let seconds = attempt.time.as_secs_f64();
        if attempt.passed {
            progress::print(&format!("FLAKY {} ({seconds:.1} s): it passes now", failure.name));
            results.summary += Summary { passed: 1, ..Summary::default() };
            results.flaky.push(Flake {
                name: failure.name.clone(),
                failed: failure.output.clone(),
                passed: attempt.output,
            });
        } else {
            let output = indented(&attempt.output);
            progress::print(&format!("FAIL {} ({seconds:.1} s): twice\n{output}", failure.name));
            results += Results::failed(Failure::new(&failure.name, attempt.output));
        }
    }
    Ok(results)
}

/// Runs failed jobs again: in a lab, each in one that has just booted. `wrong` judges the job of
/// this index.
pub(crate) fn jobs_again(
    runner: &Runner,
    failed: Vec<(Job, Failure)>,
    wrong: &dyn Fn(usize, &Outcome) -> Vec<String>,
) -> Result<Results> {
    let (jobs, failures): (Vec<Job>, Vec<Failure>) = failed.into_iter().unzip();
    again(&failures, &mut |index| {
        let mut attempt =
            Attempt { passed: false, output: "it gave no result".to_owned(), time: Duration::ZERO };
        let Some(job) = jobs.get(index) else { return Ok(attempt) };
        runner.run(std::slice::from_ref(job), &mut |_, outcome| {
            let wrong = wrong(index, outcome);
            let output = report::text(job, outcome, &wrong);
            attempt = Attempt { passed: wrong.is_empty(), output, time: outcome.time };
        })?;
        Ok(attempt)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(name: &str) -> Failure {
        Failure::new(name, "no")
    }

    #[test]
    fn many_failures_are_no_chance() {
        let failures: Vec<Failure> = (0..=MOST).map(|n| failure(&n.to_string())).collect();
        let results = again(&failures, &mut |_| panic!("it was run")).unwrap();
        assert_eq!((results.summary.failed, results.flaky.len()), (MOST + 1, 0));
    }
}
