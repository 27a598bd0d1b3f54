//! Counting exits by wrapping the step.

use nerite_hypervisor::{Entry, Error, Exit, ExitCounts, Layer, Statistics, Vcpu};

/// A vCPU that counts its exits.
#[derive(Debug)]
pub struct Counted {
    inner: Box<dyn Vcpu>,
    counts: ExitCounts,
}

impl Counted {
    /// Counts the exits of `inner` from now on.
    pub fn new(inner: Box<dyn Vcpu>) -> Self {
        Self { inner, counts: ExitCounts::default() }
    }

    /// The counts so far.
    pub fn counts(&self) -> &ExitCounts {
        &self.counts
    }
}

impl Layer for Counted {
    fn inner(&self) -> &dyn Vcpu {
        &*self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Vcpu {
        &mut *self.inner
    }

    fn run_layer(&mut self, entry: Entry) -> Result<Exit, Error> {
        // Looked at in its place: a copy of what has just been written costs as much as the count.
        let result = self.inner.run(entry);
        if let Ok(exit) = &result {
            self.counts.count(exit.kind());
        }
        result
    }

    fn complete_layer(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        let exit = self.inner.complete(entry)?;
        if let Some(exit) = &exit {
            self.counts.count(exit.kind());
        }
        Ok(exit)
    }

    fn statistics_layer(&self) -> Option<Statistics> {
        Some(Statistics { exits: self.counts, ..self.inner.statistics().unwrap_or_default() })
    }
}
