//! Logging what a guest does wrong without letting it flood the log.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts down the messages a guest may still cause.
#[derive(Debug)]
pub struct LogBudget(AtomicU32);

impl LogBudget {
    /// A budget of this many messages for the life of a machine.
    pub const fn new(messages: u32) -> Self {
        Self(AtomicU32::new(messages))
    }

    /// Logs an error of the guest, if its budget is not used up.
    pub fn guest_error(&self, message: fmt::Arguments<'_>) {
        if !log::log_enabled!(log::Level::Warn) {
            return;
        }
        if let Some(left) = self.take() {
            log::warn!("{message}");
            if left == 0 {
                log::warn!("further errors of this guest are not logged");
            }
        }
    }

    /// Takes one message; how many are left, or `None` if there was none.
    fn take(&self) -> Option<u32> {
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .ok()?;
        before.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_runs_out_and_stays_out() {
        let budget = LogBudget::new(3);
        for expected in (0..3).rev() {
            assert_eq!(budget.take(), Some(expected));
        }
        assert_eq!(budget.take(), None);
        assert_eq!(LogBudget::new(0).take(), None);
    }
}
