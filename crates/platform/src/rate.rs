//! Rate limit of a guest's console.

use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nerite_devices::Console;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::StopToken;

/// Amount that may be written at once after a time of silence, as a time at the full rate in
/// nanoseconds.
const BURST: u64 = SECOND;
const SECOND: u64 = 1_000_000_000;

/// A number of bytes a second, for all vCPUs together.
#[derive(Debug)]
pub struct Rate {
    per_second: NonZeroU64,
    start: Instant,
    /// When all that was written so far would be through at the full rate, in nanoseconds since
    /// `start`.
    through: AtomicU64,
}

impl Rate {
    /// A rate of `per_second` bytes.
    pub fn new(per_second: NonZeroU64) -> Self {
        Self { per_second, start: Instant::now(), through: AtomicU64::new(0) }
    }

    /// Time to wait before these bytes are written. They count from now on.
    fn delay(&self, bytes: usize) -> Duration {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.delay_at(now, bytes)
    }

    /// Counts one byte if it can be written at once. Returns whether it can.
    pub fn take_one(&self) -> bool {
        self.delay(0).is_zero() && self.delay(1).is_zero()
    }

    /// Waits until so many bytes may be written, with no lock held, and lets the console write what
    /// is ready meanwhile. Returns false if `stop` became readable first.
    ///
    /// # Errors
    /// Fails if the host cannot wait.
    pub fn wait(&self, bytes: usize, console: &Console, stop: &StopToken) -> io::Result<bool> {
        let until = Instant::now().checked_add(self.delay(bytes));
        loop {
            // A time that the clock cannot express does not come.
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(true);
            }
            // What is ready to be seen has waited long enough.
            if let Err(error) = console.flush() {
                log::debug!("flushing before a wait: {error}");
            }
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(stop, PollFlags::IN)], timeout.as_ref()) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn delay_at(&self, now: u64, bytes: usize) -> Duration {
        let cost = u128::from(SECOND)
            .saturating_mul(bytes as u128)
            .div_euclid(self.per_second.get().into());
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let begin = |through: u64| through.max(now.saturating_sub(BURST));
        let before = self.through.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |through| {
            Some(begin(through).saturating_add(cost))
        });
        Duration::from_nanos(begin(before.unwrap_or_default()).saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn delays(per_second: u64, writes: &[(u64, usize)]) -> Vec<u128> {
        let rate = Rate::new(NonZeroU64::new(per_second).unwrap());
        writes.iter().map(|&(now, bytes)| rate.delay_at(now * MS, bytes).as_millis()).collect()
    }

    #[test]
    fn a_second_is_free_after_silence_and_no_more() {
        assert_eq!(
            delays(1000, &[(5000, 400), (5000, 600), (5000, 100), (5000, 1)]),
            [0, 0, 0, 100]
        );
        assert_eq!(
            delays(1000, &[(9000, 1), (90_000, 1000), (90_000, 1), (90_000, 1)]),
            [0, 0, 0, 1]
        );
    }

    #[test]
    fn the_rate_holds_in_the_long_run() {
        // Each write waits for those before it.
        assert_eq!(
            delays(1000, &[(0, 2000), (2000, 2000), (4000, 2000), (4500, 1)]),
            [0, 0, 0, 1500]
        );
        assert_eq!(delays(1, &[(0, usize::MAX), (1, 1)])[1], u128::from(u64::MAX / MS - 1));
    }
}
