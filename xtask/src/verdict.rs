//! Runs jobs that are tests: prints a line for each, and runs those that fail once more.

use anyhow::Result;

use crate::job::{Job, Outcome};
use crate::platform::Runner;
use crate::progress;
use crate::report;
use crate::results::{Failure, Results};
use crate::retry;
use crate::rounds::{self, Single};

/// Runs the jobs, prints a line for each, and runs those that fail once more. `wrong` says what is
/// wrong with the outcome of the job of this index: nothing if it passed.
pub(crate) fn run(
    runner: &Runner,
    jobs: &[Job],
    wrong: &dyn Fn(usize, &Outcome) -> Vec<String>,
) -> Result<Results> {
    if runner.repeat.is_wanted() {
        return rounds::run(runner, jobs, &|index, outcome| {
            let Some(job) = jobs.get(index) else { return Vec::new() };
            let wrong = wrong(index, outcome);
            let failed = (!wrong.is_empty()).then(|| report::text(job, outcome, &wrong));
            vec![Single { name: job.name.clone(), time: outcome.time, failed }]
        });
    }
    let mut results = Results::default();
    let mut failed = Vec::new();
    let freezes = runner.run(jobs, &mut |index, outcome| {
        let Some(job) = jobs.get(index) else { return };
        results.times.push((job.name.clone(), outcome.time));
        let wrong = wrong(index, outcome);
        if wrong.is_empty() {
            progress::print(&format!("ok   {} ({:.1} s)", job.name, outcome.time.as_secs_f64()));
            results += Results::passed();
        } else {
            let failure = Failure::new(&job.name, report::text(job, outcome, &wrong));
            retry::announce(&failure);
            failed.push((index, failure));
        }
    })?;
    if freezes > 0 {
        progress::say(&format!("the lab froze {freezes} times and was started again"));
    }
    let indices: Vec<usize> = failed.iter().map(|(index, _)| *index).collect();
    let failed =
        failed.into_iter().filter_map(|(index, failure)| Some((jobs.get(index)?.clone(), failure)));
    results += retry::jobs_again(runner, failed.collect(), &|at, outcome| {
        indices.get(at).map_or_else(Vec::new, |index| wrong(*index, outcome))
    })?;
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Ending, Summary};
    use crate::lab::Machine;
    use crate::platform::Platform;
    use crate::repeat::Repeat;

    fn runner() -> Runner {
        let (machine, repeat) = (Machine::default(), Repeat::default());
        Runner { platform: Platform::Hardware, workers: 1, machine, repeat }
    }

    fn not_zero(_: usize, outcome: &Outcome) -> Vec<String> {
        if outcome.ending == Ending::Exited(0) { Vec::new() } else { vec!["not zero".to_owned()] }
    }

    /// Jobs that fail in the first runs, so many as given: each counts its runs in a file.
    fn run_twice(failing: &[usize]) -> Results {
        let folder = tempfile::tempdir().unwrap();
        let job = |(number, failing): (usize, &usize)| {
            let script = format!(
                "echo run >>runs{number}; wc -l <runs{number}; [ $(wc -l <runs{number}) -gt {failing} ]"
            );
            Job {
                name: format!("job {number}"),
                command: ["sh", "-c", &script].map(str::to_owned).to_vec(),
                dir: Some(folder.path().to_owned()),
                timeout: 20,
                ..Job::default()
            }
        };
        let jobs: Vec<Job> = failing.iter().enumerate().map(job).collect();
        run(&runner(), &jobs, &not_zero).unwrap()
    }

    #[test]
    fn a_job_that_fails_once_is_flaky() {
        let results = run_twice(&[0, 1, 2]);
        assert_eq!(results.summary, Summary { passed: 2, failed: 1, skipped: 0 });
        let [flake] = results.flaky.as_slice() else { panic!("{:?}", results.flaky) };
        assert_eq!(flake.name, "job 1");
        assert!(
            flake.failed.contains("not zero") && flake.failed.contains("\n  1"),
            "{}",
            flake.failed
        );
        assert!(
            !flake.passed.contains("not zero") && flake.passed.contains("\n  2"),
            "{}",
            flake.passed
        );
        assert_eq!(Results { times: Vec::new(), ..results }.close(), 1);
        assert_eq!(run_twice(&[1]).close(), 0);
    }
}
