//! Jobs for several labs: whoever is free takes the next one.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Which jobs of a list are still to be run. Several labs may take from it.
#[derive(Debug)]
pub(crate) struct Queue(Mutex<VecDeque<usize>>);

impl Queue {
    /// All of so many jobs, in order.
    pub(crate) fn new(jobs: usize) -> Self {
        Self(Mutex::new((0..jobs).collect()))
    }

    fn with<T>(&self, what: impl FnOnce(&mut VecDeque<usize>) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next job.
    pub(crate) fn take(&self) -> Option<usize> {
        self.with(VecDeque::pop_front)
    }

    /// One that was not run after all comes next.
    pub(crate) fn put_back(&self, job: usize) {
        self.with(|jobs| jobs.push_front(job));
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.with(|jobs| jobs.is_empty())
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
}
