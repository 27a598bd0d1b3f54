//! Counts of a disk's requests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counted requests, each in one of the kinds; `errors` count a second time.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    others: AtomicU64,
    errors: AtomicU64,
}

/// Requests and bytes of a disk so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Requests to read.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Requests to write.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Other requests: flushing, discarding, zeroing, identifying.
    pub others: u64,
    /// Requests of any kind that failed.
    pub errors: u64,
}

fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn read(&self) {
        add(&self.reads, 1);
    }

    pub(crate) fn read_bytes(&self, bytes: u64) {
        add(&self.read_bytes, bytes);
    }

    pub(crate) fn write(&self) {
        add(&self.writes, 1);
    }

    pub(crate) fn written_bytes(&self, bytes: u64) {
        add(&self.written_bytes, bytes);
    }

    pub(crate) fn other(&self) {
        add(&self.others, 1);
    }

    pub(crate) fn error(&self) {
        add(&self.errors, 1);
    }

    pub(crate) fn totals(&self) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            reads: get(&self.reads),
            read_bytes: get(&self.read_bytes),
            writes: get(&self.writes),
            written_bytes: get(&self.written_bytes),
            others: get(&self.others),
            errors: get(&self.errors),
        }
    }
}
