//! Detects a guest that has halted permanently.
//!
//! A processor that halts with interrupts off is woken by an NMI, an INIT or a reset only. When all
//! are, no source of one is left. KVM keeps halted processors to itself, so the vCPUs are queried,
//! which takes each out of its halt for a moment. A machine is queried only when its process has
//! used next to no processor time, and less and less often while it turns out to be just waiting.

use std::time::{Duration, Instant};

use nerite_arch::Regs;
use nerite_vcpu::{RunState, Vcpu};
use rustix::time::{ClockId, clock_gettime};

/// Idle time of a machine before its first query.
pub(crate) const FIRST: Duration = Duration::from_secs(1);
/// The longest time between two questions.
const LONGEST: Duration = Duration::from_secs(16);
/// A process that uses less than one part in so many of its time is idle.
const IDLE_PART: u32 = 50;

/// Watches for a guest that has halted permanently.
#[derive(Debug)]
pub(crate) struct HaltWatch {
    interval: Duration,
    next: Instant,
    /// Processor time of this process when the interval began; not asked for until there was one,
    /// as many machines are gone by then.
    used: Option<Duration>,
}

fn process_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

impl HaltWatch {
    pub(crate) fn new() -> Self {
        Self { interval: FIRST, next: after(Instant::now(), FIRST), used: None }
    }

    /// When to look next.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Checks, if it is due, which may mean a query of all vCPUs. Returns `true` if the guest has
    /// halted permanently.
    pub(crate) fn look(&mut self, all_halted: impl FnOnce() -> bool) -> bool {
        if Instant::now() < self.next {
            return false;
        }
        let Some(before) = self.used else {
            self.used = Some(process_time());
            self.next = after(Instant::now(), FIRST);
            return false;
        };
        let used = process_time().saturating_sub(before);
        let is_idle = used < self.interval.checked_div(IDLE_PART).unwrap_or_default();
        let halted = is_idle && all_halted();
        self.interval = if is_idle { self.interval.saturating_mul(2).min(LONGEST) } else { FIRST };
        self.next = after(Instant::now(), self.interval);
        self.used = Some(process_time());
        halted
    }
}

/// `true` if a vCPU has halted with interrupts off. `state` is the one in which it is held.
///
/// # Errors
/// If the hypervisor fails.
pub(crate) fn is_halted(vcpu: &mut dyn Vcpu, state: RunState) -> Result<bool, nerite_vcpu::Error> {
    let is_waiting = state == RunState::Paused && vcpu.is_halted()?;
    Ok(is_waiting && vcpu.regs()?.rflags & Regs::RFLAGS_IF == 0)
}

fn after(now: Instant, interval: Duration) -> Instant {
    now.checked_add(interval).unwrap_or(now)
}
