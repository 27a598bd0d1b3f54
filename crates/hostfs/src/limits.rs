//! Limits of what a guest may use.

use std::sync::atomic::{AtomicU64, Ordering};

/// Limits of a guest's use of the host's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Descriptors open at the same time, without the standard streams. 1024 by default; one more
    /// is `EMFILE`.
    pub open_files: usize,
    /// Bytes written to files over the whole run. No limit by default; one more is `ENOSPC`.
    pub bytes_written: u64,
    /// Bytes in temporary files at the same time, holes included. 256 MiB by default; one more is
    /// `ENOSPC`.
    pub temporary_bytes: u64,
    /// Temporary files and directories at the same time. 1024 by default; one more is `ENOSPC`.
    pub temporary_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            open_files: 1024,
            bytes_written: u64::MAX,
            temporary_bytes: 256 << 20,
            temporary_entries: 1024,
        }
    }
}

/// An amount that is used up, and given back, by many at a time.
#[derive(Debug)]
pub(crate) struct Budget {
    amount: u64,
    left: AtomicU64,
}

impl Budget {
    pub(crate) const fn new(amount: u64) -> Self {
        Self { amount, left: AtomicU64::new(amount) }
    }

    /// Amount that is used up.
    pub(crate) fn used(&self) -> u64 {
        self.amount.saturating_sub(self.left.load(Ordering::Acquire))
    }

    /// Makes `used` the amount that is used up. Returns `false` if that is more than there is.
    pub(crate) fn set_used(&self, used: u64) -> bool {
        let left = self.amount.checked_sub(used);
        left.iter().for_each(|left| self.left.store(*left, Ordering::Release));
        left.is_some()
    }

    /// Takes `wanted`, or what is left of it.
    pub(crate) fn take(&self, wanted: u64) -> u64 {
        let before = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| {
            Some(left.saturating_sub(wanted))
        });
        before.unwrap_or(0).min(wanted)
    }

    /// Gives back what was taken and not used.
    pub(crate) fn give_back(&self, amount: u64) {
        // Never more than was taken, so the sum does not overflow.
        self.left.fetch_add(amount, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_not_overdrawn() {
        let budget = Budget::new(10);
        assert_eq!(budget.take(4), 4);
        assert_eq!(budget.take(8), 6);
        assert_eq!(budget.take(1), 0);
        budget.give_back(3);
        assert_eq!(budget.take(u64::MAX), 3);
        let all = Budget::new(u64::MAX);
        assert_eq!(all.take(5), 5);
        all.give_back(5);
        assert_eq!(all.take(u64::MAX), u64::MAX);
    }

    #[test]
    fn threads_share_a_budget_exactly() {
        let budget = Budget::new(1000);
        let taken: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).map(|_| budget.take(1)).sum::<u64>()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }
}
