//! Time as devices show it.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of time for devices.
pub trait TimeSource: fmt::Debug + Send + Sync {
    /// Time of day.
    fn now(&self) -> SystemTime;

    /// Time since the machine was made, which never goes backwards.
    fn elapsed(&self) -> Duration;
}

/// The host's time.
#[derive(Debug)]
pub struct HostTime(Instant);

impl HostTime {
    /// The host's time; the machine is made now.
    #[must_use]
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Default for HostTime {
    fn default() -> Self {
        Self::new()
    }
}

impl TimeSource for HostTime {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A machine's own time, which begins at midnight of 1 January 2026, UTC.
pub struct VirtualTime<F>(F);

impl<F: Fn() -> Duration + Send + Sync> VirtualTime<F> {
    /// Seconds from the Unix epoch to the beginning.
    const START: Duration = Duration::from_secs(1_767_225_600);

    /// A clock of which `elapsed` returns the time since the machine was made.
    pub const fn new(elapsed: F) -> Self {
        Self(elapsed)
    }
}

impl<F: Fn() -> Duration + Send + Sync> TimeSource for VirtualTime<F> {
    fn now(&self) -> SystemTime {
        let since_epoch = Self::START.saturating_add(self.elapsed());
        UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH)
    }

    fn elapsed(&self) -> Duration {
        (self.0)()
    }
}

impl<F> fmt::Debug for VirtualTime<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VirtualTime")
    }
}
