//! Counting exits by wrapping the step.

use std::fmt;

use crate::{Entry, Error, Exit, Kind, Layer, Statistics, Vcpu};

/// A vCPU that counts its exits.
#[derive(Debug)]
pub struct Counted<V> {
    inner: V,
    counts: ExitCounts,
}

impl<V: Vcpu> Counted<V> {
    /// Counts the exits of `inner` from now on.
    pub fn new(inner: V) -> Self {
        Self { inner, counts: ExitCounts::default() }
    }

    /// The counts so far.
    pub fn counts(&self) -> &ExitCounts {
        &self.counts
    }
}

impl<V: Vcpu> Layer for Counted<V> {
    type Inner = V;

    fn inner(&self) -> &V {
        &self.inner
    }

    fn inner_mut(&mut self) -> &mut V {
        &mut self.inner
    }

    fn run_layer(&mut self, entry: Entry) -> Result<Exit, Error> {
        let exit = self.inner.run(entry)?;
        self.counts.count(exit.kind());
        Ok(exit)
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

/// How often a vCPU left the guest, by [`Kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExitCounts {
    by_kind: [u64; Kind::ALL.len()],
}

impl ExitCounts {
    /// Counts one exit.
    pub fn count(&mut self, kind: Kind) {
        if let Some(count) = self.by_kind.get_mut(usize::from(kind as u8)) {
            *count = count.wrapping_add(1);
        }
    }

    /// How many exits of `kind` there were.
    pub fn of(&self, kind: Kind) -> u64 {
        self.by_kind.get(usize::from(kind as u8)).copied().unwrap_or_default()
    }

    /// How many exits there were in all.
    pub fn total(&self) -> u64 {
        self.by_kind.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Adds the counts of another vCPU.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in self.by_kind.iter_mut().zip(other.by_kind) {
            *to = to.wrapping_add(from);
        }
    }
}

impl fmt::Display for ExitCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} exits", self.total())?;
        for kind in Kind::ALL {
            if self.of(kind) > 0 {
                write!(f, ", {} {}", self.of(kind), kind.name())?;
            }
        }
        Ok(())
    }
}
