//! Time as the chips get it: a value that the caller passes in.

use std::num::NonZeroU32;

/// A moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Time {
    /// Nanoseconds since any beginning that all chips of a machine share.
    pub nanoseconds: u64,
    /// The guest's time-stamp counter on the processor whose APIC this is for.
    pub tsc: u64,
}

impl Time {
    /// A moment for chips whose timers do not compare with the time-stamp counter.
    #[must_use]
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self { nanoseconds, tsc: 0 }
    }
}

/// The moment at which a local APIC's timer expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// On the clock of [`Time::nanoseconds`].
    Nanoseconds(u64),
    /// On the guest's time-stamp counter.
    Tsc(u64),
}

impl Deadline {
    /// Nanoseconds from `now` until the deadline, rounded up; 0 if it has passed. `tsc_khz` is the
    /// frequency of the guest's time-stamp counter.
    #[must_use]
    pub fn delay(self, now: Time, tsc_khz: NonZeroU32) -> u64 {
        match self {
            Self::Nanoseconds(at) => at.saturating_sub(now.nanoseconds),
            Self::Tsc(at) => {
                let ticks = u128::from(at.saturating_sub(now.tsc));
                let delay = ticks.saturating_mul(1_000_000).div_ceil(u128::from(tsc_khz.get()));
                u64::try_from(delay).unwrap_or(u64::MAX)
            }
        }
    }

    /// Returns `true` if it is `now` or has passed.
    #[must_use]
    pub const fn has_passed(self, now: Time) -> bool {
        match self {
            Self::Nanoseconds(at) => at <= now.nanoseconds,
            Self::Tsc(at) => at <= now.tsc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_rounded_up_and_never_overflow() {
        let khz = NonZeroU32::new(3_000_000).unwrap();
        let now = Time { nanoseconds: 100, tsc: 1000 };
        assert_eq!(Deadline::Nanoseconds(150).delay(now, khz), 50);
        assert_eq!(Deadline::Nanoseconds(50).delay(now, khz), 0);
        assert_eq!(Deadline::Tsc(1004).delay(now, khz), 2);
        assert_eq!(Deadline::Tsc(999).delay(now, khz), 0);
        assert_eq!(Deadline::Tsc(u64::MAX).delay(now, NonZeroU32::MIN), u64::MAX);
        assert!(Deadline::Tsc(1000).has_passed(now) && !Deadline::Tsc(1001).has_passed(now));
        assert!(
            Deadline::Nanoseconds(100).has_passed(now)
                && !Deadline::Nanoseconds(101).has_passed(now)
        );
    }
}
