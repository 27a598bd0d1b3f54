//! The timer of a local APIC: one-shot, periodic and TSC deadline mode (Intel SDM vol. 3, 12.5.4).
//!
//! Before the divider its clock has 1 GHz, as KVM's: a count of 1 is 1 ns.

use super::local::Entry;
use super::{ApicMode, LocalApic};
use crate::time::{Deadline, Time};

/// The shortest period of a periodic timer in nanoseconds, as KVM's: a shorter one is made as long.
pub const MIN_PERIOD: u64 = 200_000;

/// Bits 18:17 of the timer's entry.
const MODE: u32 = 3 << 17;
const PERIODIC: u32 = 1 << 17;
const TSC_DEADLINE: u32 = 2 << 17;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
    /// The reserved one: the timer does not run.
    Reserved,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timer {
    pub(super) initial_count: u32,
    /// The divide configuration register.
    pub(super) divide: u32,
    /// Nanoseconds at which the count comes to zero.
    pub(super) deadline: Option<u64>,
    /// `IA32_TSC_DEADLINE`; 0 if it is not armed.
    pub(super) tsc_deadline: u64,
}

impl Timer {
    pub(super) const STOPPED: Self =
        Self { initial_count: 0, divide: 0, deadline: None, tsc_deadline: 0 };

    /// Ticks of the clock that one count takes (SDM figure 12-10).
    pub(super) const fn divider(&self) -> u64 {
        match self.divide & 0b1011 {
            0b0000 => 2,
            0b0001 => 4,
            0b0010 => 8,
            0b0011 => 16,
            0b1000 => 32,
            0b1001 => 64,
            0b1010 => 128,
            _ => 1,
        }
    }

    /// Nanoseconds from the initial count to zero.
    fn period(&self, mode: TimerMode) -> u64 {
        let period = u64::from(self.initial_count).saturating_mul(self.divider());
        if mode == TimerMode::Periodic { period.max(MIN_PERIOD) } else { period }
    }
}

const fn mode_of(entry: u32) -> TimerMode {
    match entry & MODE {
        0 => TimerMode::OneShot,
        PERIODIC => TimerMode::Periodic,
        TSC_DEADLINE => TimerMode::TscDeadline,
        _ => TimerMode::Reserved,
    }
}

/// Returns `true` if this timer entry selects TSC deadline mode.
pub(super) fn is_deadline_mode(entry: u32) -> bool {
    mode_of(entry) == TimerMode::TscDeadline
}

/// Returns `true` if this timer entry selects a mode in which the timer counts.
pub(super) fn is_counting_mode(entry: u32) -> bool {
    matches!(mode_of(entry), TimerMode::OneShot | TimerMode::Periodic)
}

impl LocalApic {
    const fn timer_mode(&self) -> TimerMode {
        let [entry, ..] = self.entries;
        mode_of(entry)
    }

    /// Bits of the timer's entry that select the mode.
    pub(super) const fn timer_mode_bits(&self) -> u32 {
        if self.config.has_tsc_deadline { MODE } else { PERIODIC }
    }

    /// Writes the timer's entry. Going to TSC deadline mode or from it stops the timer (SDM vol. 3,
    /// 12.5.4.1).
    pub(super) fn set_timer_entry(&mut self, value: u32) {
        let was_deadline = self.timer_mode() == TimerMode::TscDeadline;
        self.set_entry(Entry::Timer, value);
        let mode = self.timer_mode();
        if was_deadline != (mode == TimerMode::TscDeadline) || mode == TimerMode::Reserved {
            self.timer = Timer { divide: self.timer.divide, ..Timer::STOPPED };
        }
    }

    /// Writes the initial count, which starts the timer or, if 0, stops it. Ignored in TSC deadline
    /// mode.
    pub(super) fn set_initial_count(&mut self, value: u32, now: u64) {
        let mode = self.timer_mode();
        if mode == TimerMode::TscDeadline {
            return;
        }
        self.timer.initial_count = value;
        let runs = value != 0 && mode != TimerMode::Reserved;
        self.timer.deadline = runs.then(|| now.saturating_add(self.timer.period(mode)));
    }

    /// Writes the divide configuration. A running timer keeps its count.
    pub(super) fn set_divide(&mut self, value: u32, now: u64) {
        let old = self.timer.divider();
        self.timer.divide = value & 0b1011;
        if let Some(deadline) = self.timer.deadline {
            let left = u128::from(deadline.saturating_sub(now))
                .saturating_mul(self.timer.divider().into());
            let left = left.checked_div(old.into()).and_then(|left| u64::try_from(left).ok());
            self.timer.deadline = Some(now.saturating_add(left.unwrap_or(u64::MAX)));
        }
    }

    /// The current count; 0 in TSC deadline mode, where none runs.
    pub(super) fn current_count(&self, now: u64) -> u32 {
        let left = self.timer.deadline.map_or(0, |deadline| deadline.saturating_sub(now));
        let count = left.checked_div(self.timer.divider()).unwrap_or(0);
        u32::try_from(count).unwrap_or(u32::MAX).min(self.timer.initial_count)
    }

    /// `IA32_TSC_DEADLINE`: 0 if no deadline is armed, or in another mode than TSC deadline mode.
    #[must_use]
    pub const fn tsc_deadline(&self) -> u64 {
        self.timer.tsc_deadline
    }

    /// Writes `IA32_TSC_DEADLINE`: 0 disarms the timer, a value that has passed expires at once.
    /// Ignored in other modes than TSC deadline mode.
    pub fn set_tsc_deadline(&mut self, value: u64, time: Time) {
        if self.mode() != ApicMode::Disabled && self.timer_mode() == TimerMode::TscDeadline {
            self.timer.tsc_deadline = value;
            self.advance(time);
        }
    }

    /// The moment at which the timer needs [`Self::advance`] next.
    #[must_use]
    pub fn next_event(&self) -> Option<Deadline> {
        match self.timer.tsc_deadline {
            0 => self.timer.deadline.map(Deadline::Nanoseconds),
            deadline => Some(Deadline::Tsc(deadline)),
        }
    }

    /// Requests the timer's interrupt if its time has come. Periods that passed unseen count as
    /// one.
    pub fn advance(&mut self, time: Time) {
        if !self.next_event().is_some_and(|deadline| deadline.has_passed(time)) {
            return;
        }
        self.timer.tsc_deadline = 0;
        let mode = self.timer_mode();
        self.timer.deadline =
            self.timer.deadline.filter(|_| mode == TimerMode::Periodic).map(|deadline| {
                let period = self.timer.period(mode);
                let missed =
                    time.nanoseconds.saturating_sub(deadline).checked_div(period).unwrap_or(0);
                deadline.saturating_add(missed.saturating_add(1).saturating_mul(period))
            });
        self.deliver_entry(Entry::Timer);
    }
}
