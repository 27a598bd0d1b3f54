//! Jobs for several labs: each takes the next one when it is free.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Indices of the jobs of a list that are still to be run. Several labs may take from it.
#[derive(Debug)]
pub(crate) struct Queue(Mutex<VecDeque<usize>>);

impl Queue {
    /// All of so many jobs, in order.
    pub(crate) fn new(jobs: usize) -> Self {
        Self::repeated(jobs, 1)
    }

    /// All of so many jobs, in order, so many times.
    pub(crate) fn repeated(jobs: usize, rounds: usize) -> Self {
        Self(Mutex::new((0..rounds).flat_map(|_| 0..jobs).collect()))
    }

    fn with<T>(&self, what: impl FnOnce(&mut VecDeque<usize>) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the next job.
    pub(crate) fn take(&self) -> Option<usize> {
        self.with(VecDeque::pop_front)
    }

    /// Makes a job that was not run after all the next one.
    pub(crate) fn put_back(&self, job: usize) {
        self.with(|jobs| jobs.push_front(job));
    }

    /// Drops all jobs that are left.
    pub(crate) fn clear(&self) {
        self.with(VecDeque::clear);
    }

    /// Number of jobs that are left.
    pub(crate) fn len(&self) -> usize {
        self.with(|jobs| jobs.len())
    }

    /// `true` if no job is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_put_back_comes_next() {
        let queue = Queue::new(2);
        assert_eq!(queue.take(), Some(0));
        queue.put_back(0);
        assert!(!queue.is_empty());
        assert_eq!([queue.take(), queue.take(), queue.take()], [Some(0), Some(1), None]);
    }

    #[test]
    fn rounds_follow_each_other_until_the_queue_is_cleared() {
        let queue = Queue::repeated(2, 3);
        assert_eq!(queue.len(), 6);
        assert_eq!([queue.take(), queue.take(), queue.take()], [Some(0), Some(1), Some(0)]);
        queue.clear();
        assert_eq!(queue.take(), None);
    }
}
