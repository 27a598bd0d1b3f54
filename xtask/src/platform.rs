//! Places in which guests run: this host's KVM if that is real, the lab otherwise.

use std::sync::mpsc;
use std::thread;

use anyhow::Result;

use crate::job::{Job, Outcome, Stream};
use crate::lab::{Machine, Queue, Report, Session};
use crate::repeat::Repeat;
use crate::{exec, host, lab, progress};

/// The two places in which a guest can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Platform {
    /// This host, whose KVM uses the processor.
    Hardware,
    /// The emulated machine.
    Lab,
}

impl Platform {
    /// Asks the host's KVM to run a guest, and says in one line what follows from the answer.
    pub(crate) fn choose() -> Result<Self> {
        let kvm = host::kvm()?;
        Ok(if kvm.is_hardware {
            progress::say("guests run on this host's hardware KVM");
            Self::Hardware
        } else {
            progress::say(&format!("guests run in the lab: this host has {}", kvm.kind));
            Self::Lab
        })
    }

    /// Our own programs there.
    pub(crate) fn tools(self) -> Result<Tools> {
        let (xtask, host) = match self {
            Self::Lab => (lab::MYSELF.into(), lab::HOST_TOOL.into()),
            Self::Hardware => (std::env::current_exe()?, host::program()?),
        };
        Ok(Tools { xtask: xtask.display().to_string(), host: host.display().to_string() })
    }
}

/// Paths of our own programs where guests run.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// This program.
    pub(crate) xtask: String,
    /// The one that asks the host through Nerite's crates.
    pub(crate) host: String,
}

/// Runs jobs on one of the platforms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runner {
    /// Place in which they run.
    pub(crate) platform: Platform,
    /// Number of jobs at the same time: processes on the host, or labs.
    pub(crate) workers: usize,
    /// Properties of a lab.
    pub(crate) machine: Machine,
    /// Number of runs of each test.
    pub(crate) repeat: Repeat,
}

impl Runner {
    /// Runs all jobs and hands each outcome to `report` as it comes, in no particular order.
    /// Returns how often a lab froze and was started again.
    pub(crate) fn run(
        &self,
        jobs: &[Job],
        report: &mut dyn FnMut(usize, &Outcome),
    ) -> Result<usize> {
        self.run_queue(jobs, &Queue::new(jobs.len()), report)
    }

    /// The same with the jobs that `queue` names, in labs that stay up until it is empty.
    pub(crate) fn run_queue(
        &self,
        jobs: &[Job],
        queue: &Queue,
        report: &mut dyn FnMut(usize, &Outcome),
    ) -> Result<usize> {
        if queue.is_empty() {
            return Ok(0);
        }
        let workers = self.workers.clamp(1, queue.len());
        let (sender, results) = mpsc::channel();
        let _step = progress::step(&format!("running jobs, {} in all", queue.len()));
        thread::scope(|scope| {
            let mut labs = Vec::new();
            for _ in 0..workers {
                let sender = sender.clone();
                match self.platform {
                    Platform::Hardware => {
                        scope.spawn(move || run_on_host(jobs, queue, &sender));
                    }
                    Platform::Lab => {
                        labs.push(scope.spawn(move || self.run_in_lab(jobs, queue, &sender)))
                    }
                }
            }
            drop(sender);
            for (index, outcome) in results {
                report(index, &outcome);
            }
            let mut freezes = 0;
            for lab in labs {
                freezes += lab
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a lab's thread panicked")))?;
            }
            Ok(freezes)
        })
    }

    fn run_in_lab(
        &self,
        jobs: &[Job],
        queue: &Queue,
        sender: &mpsc::Sender<(usize, Outcome)>,
    ) -> Result<usize> {
        Session::new(self.machine)?.run(jobs, queue, &mut |report| {
            if let Report::Finished(index, outcome) = report {
                let _ = sender.send((index, outcome.clone()));
            }
        })
    }
}

fn run_on_host(jobs: &[Job], queue: &Queue, sender: &mpsc::Sender<(usize, Outcome)>) {
    while let Some(index) = queue.take() {
        let Some(job) = jobs.get(index) else { return };
        let mut outcome = Outcome::failed("");
        (outcome.ending, outcome.time) = exec::execute(job, &mut |stream, bytes| match stream {
            Stream::Out => outcome.stdout.extend_from_slice(bytes),
            Stream::Err => outcome.stderr.extend_from_slice(bytes),
        });
        let _ = sender.send((index, outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Ending;

    #[test]
    fn jobs_on_the_host_run_at_the_same_time_and_keep_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let job = |script: &str| Job {
            command: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
            dir: Some(folder.path().to_owned()),
            timeout: 20,
            ..Job::default()
        };
        // The first one ends only if the second one runs meanwhile.
        let jobs =
            [job("until [ -e go ]; do sleep 0.05; done; echo first"), job("touch go; exit 5")];
        let (machine, repeat) = (Machine::default(), Repeat::default());
        let runner = Runner { platform: Platform::Hardware, workers: 2, machine, repeat };
        let mut seen = vec![None; jobs.len()];
        let freezes = runner.run(&jobs, &mut |index, outcome| {
            seen[index] = Some((outcome.ending.clone(), outcome.stdout.clone()));
        });
        assert_eq!(freezes.unwrap(), 0);
        assert_eq!(seen[0], Some((Ending::Exited(0), b"first\n".to_vec())));
        assert_eq!(seen[1], Some((Ending::Exited(5), Vec::new())));
    }
}
