#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod causes;

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub use causes::Causes;

/// The log lines that one source may still cause, and the number of those that were dropped.
///
/// Shared by all threads that log on behalf of the source.
#[derive(Debug)]
pub struct LogBudget {
    source: &'static str,
    left: AtomicU32,
    dropped: AtomicU64,
}

impl LogBudget {
    /// A budget of `lines` lines. `source` names who causes them in the line that counts the rest.
    pub const fn new(source: &'static str, lines: u32) -> Self {
        Self { source, left: AtomicU32::new(lines), dropped: AtomicU64::new(0) }
    }

    /// Logs `message` as a warning, or counts it if the budget is used up.
    pub fn warn(&self, message: fmt::Arguments<'_>) {
        self.log(log::Level::Warn, message);
    }

    /// Logs `message` as an error, or counts it if the budget is used up.
    pub fn error(&self, message: fmt::Arguments<'_>) {
        self.log(log::Level::Error, message);
    }

    /// The number of messages that were not logged since the last [`Self::report`].
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Logs how many messages were dropped, if any were. Dropping the budget does the same.
    pub fn report(&self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            log::warn!("{}: {dropped} more messages were not logged", self.source);
        }
    }

    fn log(&self, level: log::Level, message: fmt::Arguments<'_>) {
        match self.take() {
            Some(left) => {
                log::log!(level, "{message}");
                if left == 0 {
                    log::warn!("{}: further messages are counted, not logged", self.source);
                }
            }
            None => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes one line out of the budget. Returns how many are left, or `None` if there was none.
    fn take(&self) -> Option<u32> {
        let take = |left: u32| left.checked_sub(1);
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        before.checked_sub(1)
    }
}

impl Drop for LogBudget {
    fn drop(&mut self) {
        self.report();
    }
}

#[cfg(test)]
mod tests;
