//! The CMOS real-time clock (MC146818) and its memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nerite_bus::{Device, Width};
use nerite_saved::{RestoreError, refuse, require_same};
use serde::{Deserialize, Serialize};

use crate::TimeSource;

/// The bits of the index port that select a register.
const INDEX: u8 = 0x7f;
const SECONDS: u8 = 0;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;
const CENTURY: u8 = 0x32;
/// Status A: 32.768 kHz time base, the usual rate; no update in progress.
const TIME_BASE: u8 = 0x26;
/// Status B: 24 hours, binary-coded decimal.
const HOURS_24: u8 = 2;
/// Status D: memory and time are valid.
const VALID: u8 = 0x80;
/// Time for which the clock stands still after the seconds were read, so that a guest reads one
/// moment and not two.
const SNAPSHOT: Duration = Duration::from_millis(500);

/// Facts about the machine that firmware stores in the CMOS memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Equipment {
    /// RAM from address 0 in bytes, below 4 GiB.
    pub low_memory: u64,
    /// RAM from 4 GiB in bytes.
    pub high_memory: u64,
    /// The number of processors, 1 to 256.
    pub cpus: u32,
}

/// A clock that shows the time of day of a source in UTC, and cannot be set; its other bytes are
/// memory. It raises no interrupt.
#[derive(Debug)]
pub struct Clock {
    state: Mutex<State>,
    time: Arc<dyn TimeSource>,
}

/// Saved state of a [`Clock`]. The time is the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockState {
    /// Selected register.
    pub index: u8,
    /// All 128 bytes of memory.
    #[serde(with = "nerite_saved::bytes")]
    pub memory: Vec<u8>,
}

#[derive(Debug)]
struct State {
    index: u8,
    memory: [u8; 128],
    /// The time that is shown, and when that was set.
    shown: (DateTime, SystemTime),
}

impl Clock {
    /// The index port; the data port follows.
    pub const PORT: u16 = 0x70;

    /// A clock that shows the time of day of `time`.
    pub fn new(equipment: &Equipment, time: Arc<dyn TimeSource>) -> Self {
        let mut memory = [0; 128];
        for (index, value) in equipment.bytes() {
            if let Some(byte) = memory.get_mut(usize::from(index)) {
                *byte = value;
            }
        }
        let now = time.now();
        Self {
            state: Mutex::new(State { index: 0, memory, shown: (DateTime::new(now), now) }),
            time,
        }
    }

    /// Selected register and memory.
    pub fn save(&self) -> ClockState {
        let state = self.lock();
        ClockState { index: state.index, memory: state.memory.to_vec() }
    }

    /// Takes a saved state. The clock shows the time of its own host.
    ///
    /// # Errors
    /// Fails if the clock cannot have this state.
    pub fn restore(&self, saved: &ClockState) -> Result<(), RestoreError> {
        const PART: &str = "clock";
        refuse(PART, "register", saved.index > INDEX)?;
        let mut state = self.lock();
        let Ok(memory) = <[u8; 128]>::try_from(saved.memory.as_slice()) else {
            return refuse(PART, "size of memory", true);
        };
        let fixed =
            (0..).zip(memory.iter().zip(&state.memory)).filter(|(index, _)| state.is_fixed(*index));
        let is_same = fixed.into_iter().all(|(_, (saved, own))| saved == own);
        require_same(PART, "fixed register", is_same)?;
        (state.index, state.memory) = (saved.index, memory);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Equipment {
    /// Memory sizes and processors where PC firmware (IBM AT, SeaBIOS) keeps them.
    fn bytes(&self) -> [(u8, u8); 13] {
        let capped =
            |value: u64, limit: u32| u32::try_from(value).unwrap_or(limit).min(limit).to_le_bytes();
        let above_1m = capped(self.low_memory.saturating_sub(1 << 20) >> 10, 0xffff);
        let above_16m = capped(self.low_memory.saturating_sub(16 << 20) >> 16, 0xffff);
        let above_4g = capped(self.high_memory >> 16, 0xff_ffff);
        let [cpus, ..] = self.cpus.saturating_sub(1).to_le_bytes();
        [
            (STATUS_A, TIME_BASE),
            (STATUS_B, HOURS_24),
            // 640 KiB of base memory.
            (0x15, 0x80),
            (0x16, 0x02),
            (0x17, above_1m[0]),
            (0x18, above_1m[1]),
            (0x30, above_1m[0]),
            (0x31, above_1m[1]),
            (0x34, above_16m[0]),
            (0x35, above_16m[1]),
            (0x5b, above_4g[0]),
            (0x5c, above_4g[1]),
            (0x5f, cpus),
        ]
    }
}

impl State {
    fn read(&mut self, now: SystemTime) -> u8 {
        let age = now.duration_since(self.shown.1);
        if self.index == SECONDS || age.is_err() || age.is_ok_and(|age| age > SNAPSHOT) {
            self.shown = (DateTime::new(now), now);
        }
        match self.index {
            STATUS_C => 0,
            STATUS_D => VALID,
            index => match self.shown.0.field(index) {
                Some(value) => bcd(value),
                None => self.memory.get(usize::from(index)).copied().unwrap_or(0xff),
            },
        }
    }

    /// `true` for registers that software cannot change.
    fn is_fixed(&self, index: u8) -> bool {
        self.shown.0.field(index).is_some() || matches!(index, STATUS_A..=STATUS_D)
    }

    fn write(&mut self, value: u8) {
        let fixed = self.is_fixed(self.index);
        if let Some(byte) = self.memory.get_mut(usize::from(self.index)).filter(|_| !fixed) {
            *byte = value;
        }
    }
}

impl Device for Clock {
    fn read(&self, offset: u64, width: Width) -> u64 {
        match (offset, width.bytes()) {
            (1, 1) => self.lock().read(self.time.now()).into(),
            _ => width.all_ones(),
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let [value, ..] = value.to_le_bytes();
        match (offset, width.bytes()) {
            // The uppermost bit masks NMI, which this machine's clock has nothing to do with.
            (0, 1) => self.lock().index = value & INDEX,
            (1, 1) => self.lock().write(value),
            _ => {}
        }
    }
}

/// A moment in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DateTime {
    year: u32,
    month: u32,
    day: u32,
    /// 1 is Sunday.
    weekday: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

impl DateTime {
    /// Times before 1970 are shown as 1970 began, those after the year 9999 as it ends.
    fn new(time: SystemTime) -> Self {
        const LAST: u64 = 253_402_300_799;
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).min(LAST);
        let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
        let small = |value: u64| u32::try_from(value).unwrap_or(0);
        let (year, month, day) = civil(days);
        Self {
            year: small(year),
            month: small(month),
            day: small(day),
            // 1 January 1970 was a Thursday.
            weekday: small((days.saturating_add(4) % 7).saturating_add(1)),
            hour: small(second_of_day / 3600),
            minute: small(second_of_day / 60 % 60),
            second: small(second_of_day % 60),
        }
    }

    /// The value of a register, if it is one of the time's.
    fn field(&self, index: u8) -> Option<u32> {
        Some(match index {
            SECONDS => self.second,
            2 => self.minute,
            4 => self.hour,
            6 => self.weekday,
            7 => self.day,
            8 => self.month,
            9 => self.year % 100,
            CENTURY => self.year / 100,
            _ => return None,
        })
    }
}

/// Year, month and day of a number of days since 1 January 1970, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last one: then the months before a
/// month have `(153 * month + 2) / 5` days.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_BEFORE_1970: u64 = 719_468;
    const PER_400_YEARS: u64 = 146_097;
    let days = days.saturating_add(DAYS_BEFORE_1970);
    let (era, day_of_era) = (days / PER_400_YEARS, days % PER_400_YEARS);
    // Takes out the leap days: every 4 years, not every 100, but every 400.
    let leaps = (day_of_era / 1460)
        .saturating_sub(day_of_era / 36_524)
        .saturating_add(day_of_era / 146_096);
    let year_of_era = day_of_era.saturating_sub(leaps) / 365;
    let before = year_of_era
        .saturating_mul(365)
        .saturating_add(year_of_era / 4)
        .saturating_sub(year_of_era / 100);
    let day_of_year = day_of_era.saturating_sub(before);
    let month = day_of_year.saturating_mul(5).saturating_add(2) / 153;
    let day = day_of_year
        .saturating_sub(month.saturating_mul(153).saturating_add(2) / 5)
        .saturating_add(1);
    let year = era.saturating_mul(400).saturating_add(year_of_era);
    if month < 10 {
        (year, month.saturating_add(3), day)
    } else {
        (year.saturating_add(1), month.saturating_sub(9), day)
    }
}

/// A number below 100 in binary-coded decimal.
fn bcd(value: u32) -> u8 {
    let digits = ((value / 10 % 10) << 4) | (value % 10);
    u8::try_from(digits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const BYTE: Width = Width::new(1).unwrap();
    const EQUIPMENT: Equipment = Equipment { low_memory: 3 << 30, high_memory: 2 << 30, cpus: 4 };

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Milliseconds since the Unix epoch.
    #[derive(Debug)]
    struct Set(AtomicU64);

    impl TimeSource for Set {
        fn now(&self) -> SystemTime {
            UNIX_EPOCH + self.elapsed()
        }

        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    fn clock(seconds: u64) -> Clock {
        Clock::new(&EQUIPMENT, Arc::new(Set(AtomicU64::new(seconds * 1000))))
    }

    fn register(clock: &Clock, index: u64) -> u64 {
        clock.write(0, BYTE, index);
        clock.read(1, BYTE)
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, (1970, 1, 1, 5, 0, 0, 0)),
            (951_782_399, (2000, 2, 28, 2, 23, 59, 59)),
            (951_782_400, (2000, 2, 29, 3, 0, 0, 0)),
            (1_709_251_199, (2024, 2, 29, 5, 23, 59, 59)),
            (1_735_689_599, (2024, 12, 31, 3, 23, 59, 59)),
            (4_107_542_400, (2100, 3, 1, 2, 0, 0, 0)),
        ] {
            let date = DateTime::new(at(seconds));
            let DateTime { year, month, day, weekday, hour, minute, second } = date;
            assert_eq!((year, month, day, weekday, hour, minute, second), expected);
        }
    }

    #[test]
    fn registers_are_binary_coded_decimal() {
        let clock = clock(1_735_689_599);
        let shown = [0, 2, 4, 6, 7, 8, 9, 0x32].map(|index| register(&clock, index));
        assert_eq!(shown, [0x59, 0x59, 0x23, 3, 0x31, 0x12, 0x24, 0x20]);
        assert_eq!(register(&clock, 0x0a) & 0x80, 0, "no update in progress");
        assert_eq!((register(&clock, 0x0b), register(&clock, 0x0d)), (2, 0x80));
    }

    #[test]
    fn one_moment_is_read_and_not_two() {
        let time = Arc::new(Set(AtomicU64::new(1_735_689_599_900)));
        let clock = Clock::new(&EQUIPMENT, time.clone());
        assert_eq!(register(&clock, 0), 0x59);
        time.0.fetch_add(200, Ordering::Relaxed);
        assert_eq!((register(&clock, 2), register(&clock, 9)), (0x59, 0x24));
        assert_eq!((register(&clock, 0), register(&clock, 2), register(&clock, 9)), (0, 0, 0x25));
    }

    #[test]
    fn memory_holds_what_is_written_and_time_does_not() {
        let clock = clock(0);
        for index in [0x40, 9, 0x0d] {
            clock.write(0, BYTE, index);
            clock.write(1, BYTE, 0x77);
        }
        assert_eq!((register(&clock, 0x40), register(&clock, 9)), (0x77, 0x70));
        assert_eq!(register(&clock, 0x0d), 0x80);
        // The NMI mask is no part of the index.
        assert_eq!(register(&clock, 0xc0), 0x77);
    }

    #[test]
    fn firmware_notes_the_equipment() {
        let clock = clock(0);
        let word = |low, high| register(&clock, low) | register(&clock, high) << 8;
        assert_eq!(word(0x15, 0x16), 640);
        assert_eq!(word(0x30, 0x31), 0xffff);
        assert_eq!(word(0x34, 0x35) << 16, (3 << 30) - (16 << 20));
        assert_eq!(word(0x5b, 0x5c) << 16, 2 << 30);
        assert_eq!(register(&clock, 0x5f), 3);
    }
}
