//! Time and chance of a VM.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nerite_x86::Platform;
use rand::Rng as _;
use rand::rngs::StdRng;

use crate::virtual_clock::{Idle, Instructions};

/// Rate of the time-stamp counter in kHz: a tick is a nanosecond. A restored guest keeps the rate
/// that it had.
pub(crate) const TSC_KHZ: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();

/// The clock that all vCPUs and timers of a VM share: nanoseconds since the VM was created.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// The host's.
    Host(Instant),
    /// Advances with the instructions of the guest.
    Virtual(Arc<Instructions>),
}

impl Clock {
    pub(crate) fn host() -> Self {
        Self::Host(Instant::now())
    }

    pub(crate) fn of_instructions(idle: Idle) -> Self {
        Self::Virtual(Arc::new(Instructions::new(idle)))
    }

    /// The time of the host's clock; with a virtual one, the latest that any vCPU has seen.
    pub(crate) fn now(&self) -> u64 {
        match self {
            Self::Host(start) => u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            Self::Virtual(clock) => clock.now(),
        }
    }

    /// The moment at which [`Self::now`] is `time`; `None` if that is too far away, or not known
    /// because the clock is virtual.
    pub(crate) fn moment(&self, time: u64) -> Option<Instant> {
        match self {
            Self::Host(start) => start.checked_add(Duration::from_nanos(time)),
            Self::Virtual(_) => None,
        }
    }
}

/// The clock as one vCPU sees it.
#[derive(Debug, Clone)]
pub(crate) struct VcpuClock {
    clock: Clock,
    /// Nanoseconds in which this vCPU executed no instruction.
    waited: Arc<AtomicU64>,
}

impl VcpuClock {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, waited: Arc::default() }
    }

    /// Time after so many instructions of this vCPU. It is never before what another vCPU has seen.
    pub(crate) fn now(&self, instructions: u64) -> u64 {
        let Clock::Virtual(clock) = &self.clock else { return self.clock.now() };
        let waited = self.waited.load(Ordering::Relaxed);
        let own = waited.wrapping_add(instructions);
        let latest = clock.advance_to(own);
        let behind = latest.saturating_sub(own);
        if behind > 0 {
            self.waited.store(waited.wrapping_add(behind), Ordering::Relaxed);
        }
        own.max(latest)
    }

    /// The clock of the VM, if it is virtual.
    pub(crate) fn of_instructions(&self) -> Option<&Arc<Instructions>> {
        match &self.clock {
            Clock::Host(_) => None,
            Clock::Virtual(clock) => Some(clock),
        }
    }
}

/// PAUSE instructions after which a vCPU's thread lets others run. A guest's lock that is held for
/// a microsecond is waited for with fewer.
const PAUSES: u32 = 64;

/// Time, chance and spin loops of one vCPU.
pub(crate) struct Source {
    clock: VcpuClock,
    random: StdRng,
    /// `true` if there is no other vCPU to wait for: the guest waits for time to go by.
    is_only: bool,
    /// PAUSE instructions since the thread yielded its processor.
    pauses: u32,
}

impl Source {
    pub(crate) fn new(clock: VcpuClock, random: StdRng, is_only: bool) -> Self {
        Self { clock, random, is_only, pauses: 0 }
    }
}

impl Platform for Source {
    fn tsc(&mut self, instructions: u64) -> u64 {
        self.clock.now(instructions)
    }

    fn random(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// With more vCPUs than processors, the one that holds a guest's lock may wait for this
    /// thread's processor. Processors with pause filters exit for the same reason (AMD APM vol. 2,
    /// 15.14.4).
    fn pause(&mut self) {
        if self.is_only {
            return;
        }
        self.pauses = self.pauses.wrapping_add(1) % PAUSES;
        if self.pauses == 0 {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IdleTime;

    #[test]
    fn vcpus_see_one_time_that_never_goes_back() {
        let clock = Clock::of_instructions(Idle::new(IdleTime::Skipped));
        let (one, two) = (VcpuClock::new(clock.clone()), VcpuClock::new(clock.clone()));
        assert_eq!((one.now(5), two.now(0), one.now(7), two.now(1)), (5, 5, 7, 7));
        // Each of its own instructions counts, from where the other one is.
        assert_eq!((two.now(4), clock.now()), (10, 10));
        let Clock::Virtual(shared) = &clock else { panic!() };
        shared.advance_to(1000);
        assert_eq!((one.now(8), one.now(9), two.now(4)), (1000, 1001, 1001));
        assert!(clock.moment(2000).is_none());
    }
}
