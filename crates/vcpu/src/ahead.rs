//! Counting instructions without looking at each: the guest runs freely while a counter of the
//! processor counts, is stopped a little before the last one, and steps the rest.

use std::fmt;

/// Number of instructions before the last one at which the counter stops the guest. It does so
/// late, by some hundred instructions, and what is left is stepped.
pub const MARGIN: u64 = 8192;

/// A counter of the instructions that one vCPU has completed.
pub trait InstructionCount: Send + fmt::Debug {
    /// Current count; `None` if the counter has failed.
    fn count(&self) -> Option<u64>;
}

/// After how many instructions a counter has to kick the vCPU, for a budget of `limit`; `None` if
/// so few are stepped.
#[must_use]
pub const fn period(limit: u64) -> Option<u64> {
    match limit.checked_sub(MARGIN) {
        Some(period) if period >= MARGIN => Some(period),
        _ => None,
    }
}

/// Progress of a vCPU that runs ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It may continue.
    Run,
    /// So many are left, to be stepped.
    Step(u64),
    /// It has executed so many too many: the counter stopped it too late.
    Over(u64),
}

/// Progress of a vCPU with a budget of `limit` is, of which a counter said `first` in the beginning
/// and says `now` now. The counter may have passed its highest value meanwhile.
#[must_use]
pub const fn progress(limit: u64, first: u64, now: u64) -> Progress {
    let executed = now.wrapping_sub(first);
    match period(limit) {
        Some(period) if executed < period => Progress::Run,
        _ => match limit.checked_sub(executed) {
            Some(left) => Progress::Step(left),
            None => Progress::Over(executed.wrapping_sub(limit)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_instructions_are_stepped_from_the_beginning() {
        assert_eq!(period(0), None);
        assert_eq!(period(2 * MARGIN - 1), None);
        assert_eq!(period(2 * MARGIN), Some(MARGIN));
        assert_eq!(period(u64::MAX), Some(u64::MAX - MARGIN));
        assert_eq!(progress(100, 0, 0), Progress::Step(100));
    }

    #[test]
    fn the_rest_is_what_the_counter_leaves() {
        let limit = 1_000_000;
        let at = period(limit).unwrap();
        for first in [0, 5, u64::MAX - 10] {
            let now = |executed: u64| first.wrapping_add(executed);
            assert_eq!(progress(limit, first, now(0)), Progress::Run);
            assert_eq!(progress(limit, first, now(at - 1)), Progress::Run);
            assert_eq!(progress(limit, first, now(at)), Progress::Step(MARGIN));
            assert_eq!(progress(limit, first, now(at + 300)), Progress::Step(MARGIN - 300));
            assert_eq!(progress(limit, first, now(limit)), Progress::Step(0));
            assert_eq!(progress(limit, first, now(limit + 1)), Progress::Over(1));
        }
    }
}
