//! Time and chance of a VM.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nerite_x86::Platform;
use rand::Rng as _;
use rand::rngs::StdRng;

/// Rate of the time-stamp counter in kHz: a tick is a nanosecond.
pub(crate) const TSC_KHZ: u32 = 1_000_000;

/// The clock that all vCPUs and timers of a VM share: nanoseconds since the VM was created.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Arc<Instant>);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Arc::new(Instant::now()))
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The moment at which [`Self::now`] is `time`; `None` if that is too far away.
    pub(crate) fn moment(&self, time: u64) -> Option<Instant> {
        self.0.checked_add(Duration::from_nanos(time))
    }
}

/// Time and chance of one vCPU.
pub(crate) struct Source {
    clock: Clock,
    random: StdRng,
}

impl Source {
    pub(crate) fn new(clock: Clock, random: StdRng) -> Self {
        Self { clock, random }
    }
}

impl Platform for Source {
    fn tsc(&mut self, _instructions: u64) -> u64 {
        self.clock.now()
    }

    fn random(&mut self) -> u64 {
        self.random.next_u64()
    }
}
