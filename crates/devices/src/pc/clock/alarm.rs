//! The alarm of the clock (MC146818A, "Time, calendar and alarm locations").

use super::bcd;

/// Values from here on match any hour, minute or second.
const ANY: u8 = 0xc0;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Time of day at which an alarm is due, in binary-coded decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alarm {
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

impl Alarm {
    /// Number of seconds since the Unix epoch at which it is due next, after `now`; `None` if it
    /// never is.
    pub(super) fn next(self, now: u64) -> Option<u64> {
        let midnight = now.checked_sub(now % DAY)?;
        let hours =
            (0..48).map(|hour: u64| (hour, midnight.saturating_add(hour.saturating_mul(HOUR))));
        // What is over is not looked at in detail: of all hours, one at most.
        let is_over =
            |start: u64, length: u64| start.saturating_add(length) <= now.saturating_add(1);
        for (hour, start) in hours.filter(|(_, start)| !is_over(*start, HOUR)) {
            if !matches(self.hour, hour % 24) {
                continue;
            }
            let minutes = (0..60)
                .map(|minute: u64| (minute, start.saturating_add(minute.saturating_mul(MINUTE))));
            for (minute, start) in minutes.filter(|(_, start)| !is_over(*start, MINUTE)) {
                if !matches(self.minute, minute) {
                    continue;
                }
                let found = (0..60)
                    .filter(|second| matches(self.second, *second))
                    .map(|second| start.saturating_add(second))
                    .find(|time| *time > now);
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }
}

fn matches(register: u8, value: u64) -> bool {
    register >= ANY || u32::try_from(value).is_ok_and(|value| bcd(value) == register)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(alarm: [u8; 3], now: u64) -> Option<u64> {
        let [hour, minute, second] = alarm;
        Alarm { hour, minute, second }.next(now)
    }

    #[test]
    fn an_alarm_is_due_at_its_next_time_of_day() {
        let day = 20_000 * DAY;
        for (alarm, now, expected) in [
            ([0x12, 0x34, 0x56], 0, 12 * HOUR + 34 * MINUTE + 56),
            ([0, 0, 0], 0, DAY),
            ([0, 0, 0], DAY - 1, DAY),
            ([0x23, 0x59, 0x59], DAY - 1, 2 * DAY - 1),
            // Every second, every minute, every hour.
            ([0xff, 0xff, 0xff], 77, 78),
            ([0xff, 0xff, 0xff], DAY - 1, DAY),
            ([0xc0, 0xc0, 0x30], 31, 90),
            ([0xc0, 0x05, 0], HOUR + 5 * MINUTE, 2 * HOUR + 5 * MINUTE),
            ([0x05, 0xff, 0], 5 * HOUR + 59 * MINUTE, DAY + 5 * HOUR),
        ] {
            assert_eq!(next(alarm, day + now), Some(day + expected), "{alarm:x?} after {now}");
        }
    }

    #[test]
    fn some_alarms_are_never_due() {
        for alarm in [[0x24, 0, 0], [0, 0x60, 0], [0, 0, 0x60], [0x1a, 0, 0], [0xbf, 0, 0]] {
            assert_eq!(next(alarm, 12_345), None, "{alarm:x?}");
        }
    }
}
