//! A clock that advances with the instructions of the guest.
//!
//! Time passes as long as any vCPU executes instructions. When all wait, the clock advances to the
//! first event of a timer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nerite_hypervisor::VirtualClock;
use parking_lot::Mutex;

use crate::signal::Signals;

/// A clock that advances by a nanosecond for each instruction of the vCPU that is furthest ahead,
/// and past the time in which all vCPUs wait.
#[derive(Debug)]
pub(crate) struct Instructions {
    latest: AtomicU64,
    pub(crate) idle: Idle,
}

impl Instructions {
    pub(crate) fn new(idle: Idle) -> Self {
        Self { latest: AtomicU64::new(0), idle }
    }

    pub(crate) fn now(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    /// Advances to `time`, unless that has passed. Returns the time before.
    pub(crate) fn advance_to(&self, time: u64) -> u64 {
        self.latest.fetch_max(time, Ordering::AcqRel)
    }
}

impl VirtualClock for Instructions {
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now())
    }
}

/// Time that a virtual clock lets pass while all vCPUs of a guest wait for a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleTime {
    /// It is skipped: the clock advances to the timer's event at once. For guests whose interrupts
    /// all come from timers.
    Skipped,
    /// It passes as on the host, so that a device's interrupt can come before the timer's event.
    Waited,
}

/// No event.
const NEVER: u64 = u64::MAX;

/// Record of which vCPUs wait, and until when.
#[derive(Debug)]
pub(crate) struct Idle {
    time: IdleTime,
    state: Mutex<State>,
    /// The first event that a vCPU waits for.
    first: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Number of vCPUs that do not wait.
    running: usize,
    /// The event that each of the others waits for, in the clock's nanoseconds.
    waiting: BTreeMap<u32, u64>,
    /// The host's time and the clock's at which the last vCPU began to wait.
    since: Option<(Instant, u64)>,
}

impl State {
    fn first(&self) -> u64 {
        self.waiting.values().copied().min().unwrap_or(NEVER)
    }
}

impl Idle {
    pub(crate) fn new(time: IdleTime) -> Self {
        Self { time, state: Mutex::default(), first: AtomicU64::new(NEVER) }
    }

    /// Adds a vCPU, which does not wait.
    pub(crate) fn join(&self) {
        let mut state = self.state.lock();
        state.running = state.running.saturating_add(1);
    }

    /// Removes a vCPU, which does not wait. One of the others looks at the time in its place.
    pub(crate) fn leave(&self, signals: &Signals) {
        let mut state = self.state.lock();
        state.running = state.running.saturating_sub(1);
        if state.running == 0
            && let Some((vcpu, _)) = state.waiting.first_key_value()
            && let Some(signal) = signals.of(*vcpu)
        {
            signal.wake();
        }
    }

    /// The first event that a vCPU waits for, if there is any.
    pub(crate) fn first(&self) -> Option<u64> {
        Some(self.first.load(Ordering::Acquire)).filter(|first| *first != NEVER)
    }

    /// Wakes the vCPUs whose event has come.
    pub(crate) fn wake_due(&self, now: u64, signals: &Signals) {
        if self.first.load(Ordering::Acquire) <= now {
            self.wake(&mut self.state.lock(), now, signals);
        }
    }

    fn wake(&self, state: &mut State, now: u64, signals: &Signals) {
        for (vcpu, event) in &mut state.waiting {
            if *event <= now && *event != NEVER {
                // It is woken once.
                *event = NEVER;
                if let Some(signal) = signals.of(*vcpu) {
                    signal.wake();
                }
            }
        }
        self.first.store(state.first(), Ordering::Release);
    }

    /// Waits on the thread of `vcpu` until it is woken, which `event` does, too.
    pub(crate) fn wait(
        &self,
        vcpu: u32,
        event: Option<u64>,
        clock: &Instructions,
        signals: &Signals,
    ) {
        let Some(signal) = signals.of(vcpu) else { return };
        let until = self.begin(vcpu, event, clock, signals);
        signal.wait(until);
        let mut state = self.state.lock();
        if let Some((began, from)) = state.since.take() {
            let passed = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            // No event is missed, and none comes before its time.
            let now = from.saturating_add(passed).min(state.first());
            clock.advance_to(now);
            self.wake(&mut state, now, signals);
        }
        state.waiting.remove(&vcpu);
        state.running = state.running.saturating_add(1);
        self.first.store(state.first(), Ordering::Release);
    }

    /// Begins to wait, and advances the clock if all vCPUs do. Returns the end of the host's time.
    fn begin(
        &self,
        vcpu: u32,
        event: Option<u64>,
        clock: &Instructions,
        signals: &Signals,
    ) -> Option<Instant> {
        let mut state = self.state.lock();
        state.running = state.running.saturating_sub(1);
        state.waiting.insert(vcpu, event.unwrap_or(NEVER));
        let first = state.first();
        self.first.store(first, Ordering::Release);
        let is_woken = |vcpu: &u32| signals.of(*vcpu).is_some_and(|signal| signal.is_woken());
        if state.running > 0 || first == NEVER || state.waiting.keys().any(is_woken) {
            return None;
        }
        match self.time {
            IdleTime::Skipped => {
                clock.advance_to(first);
                self.wake(&mut state, first, signals);
                None
            }
            IdleTime::Waited => {
                let (now, from) = (Instant::now(), clock.now());
                state.since = Some((now, from));
                now.checked_add(Duration::from_nanos(first.saturating_sub(from)))
            }
        }
    }
}
