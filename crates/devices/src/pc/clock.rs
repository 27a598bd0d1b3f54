//! The CMOS real-time clock (MC146818) and its memory.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nerite_bus::{Device, Width};
use nerite_saved::{RestoreError, refuse, require_same};
use serde::{Deserialize, Serialize};

use crate::TimeSource;

mod alarm;

use alarm::Alarm;

/// The bits of the index port that select a register.
const INDEX: u8 = 0x7f;
const SECONDS: u8 = 0;
/// Seconds, minutes and hours of the alarm.
const ALARM: [u8; 3] = [1, 3, 5];
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;
const CENTURY: u8 = 0x32;
/// Status A: 32.768 kHz time base, the usual rate; no update in progress.
const TIME_BASE: u8 = 0x26;
/// Status B: 24 hours, binary-coded decimal.
const HOURS_24: u8 = 2;
/// Status B: the alarm raises an interrupt.
const ALARM_ENABLE: u8 = 1 << 5;
/// Status C: the alarm was due; and an interrupt is raised.
const ALARM_FLAG: u8 = 1 << 5;
const INTERRUPT_FLAG: u8 = 1 << 7;
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
/// memory. Its alarm is the only interrupt: the owner of the clock looks when it is due
/// ([`Clock::due`]).
pub struct Clock {
    state: Mutex<State>,
    time: Arc<dyn TimeSource>,
    /// Raises (`true`) and lowers its interrupt.
    line: AlarmLine,
    /// Called when the alarm may be due at another time.
    changed: Box<dyn Fn() + Send + Sync>,
}

/// Raises (`true`) or lowers the clock's interrupt.
pub type AlarmLine = Box<dyn Fn(bool) + Send + Sync>;

/// Saved state of a [`Clock`]. The time is the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockState {
    /// Selected register.
    pub index: u8,
    /// Status C: the alarm's flag and that of the interrupt.
    #[serde(default)]
    pub status_c: u8,
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
    status_c: u8,
    /// Number of seconds since the Unix epoch at which the alarm is due.
    alarm: Option<u64>,
}

impl Clock {
    /// The index port; the data port follows.
    pub const PORT: u16 = 0x70;

    /// A clock that shows the time of day of `time`. The alarm raises `line`; `changed` is called
    /// when [`Self::due`] may have changed.
    pub fn new(
        equipment: &Equipment,
        time: Arc<dyn TimeSource>,
        line: AlarmLine,
        changed: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let mut memory = [0; 128];
        for (index, value) in equipment.bytes() {
            if let Some(byte) = memory.get_mut(usize::from(index)) {
                *byte = value;
            }
        }
        let now = time.now();
        let shown = (DateTime::new(now), now);
        let state = State { index: 0, memory, shown, status_c: 0, alarm: None };
        Self { state: Mutex::new(state), time, line, changed }
    }

    /// Time until the alarm is due; `None` if it is off.
    pub fn due(&self) -> Option<Duration> {
        let due = UNIX_EPOCH.checked_add(Duration::from_secs(self.lock().alarm?))?;
        Some(due.duration_since(self.time.now()).unwrap_or_default())
    }

    /// Raises the interrupt if the alarm is due.
    pub fn check_alarm(&self) {
        let mut state = self.lock();
        let now = seconds(self.time.now());
        if state.alarm.is_none_or(|alarm| alarm > now) {
            return;
        }
        state.status_c |= ALARM_FLAG | INTERRUPT_FLAG;
        state.set_alarm(now);
        // Under the lock: the line follows the register in its order.
        (self.line)(true);
    }

    /// Selected register and memory.
    pub fn save(&self) -> ClockState {
        let state = self.lock();
        let State { index, status_c, memory, .. } = *state;
        ClockState { index, status_c, memory: memory.to_vec() }
    }

    /// Takes a saved state. The clock shows the time of its own host. The interrupt controllers
    /// must have their state by now.
    ///
    /// # Errors
    /// Fails if the clock cannot have this state.
    pub fn restore(&self, saved: &ClockState) -> Result<(), RestoreError> {
        const PART: &str = "clock";
        refuse(PART, "register", saved.index > INDEX)?;
        let flags = [0, ALARM_FLAG | INTERRUPT_FLAG];
        refuse(PART, "status", !flags.contains(&saved.status_c))?;
        let mut state = self.lock();
        let Ok(memory) = <[u8; 128]>::try_from(saved.memory.as_slice()) else {
            return refuse(PART, "size of memory", true);
        };
        let fixed =
            (0..).zip(memory.iter().zip(&state.memory)).filter(|(index, _)| state.is_fixed(*index));
        let is_same = fixed.into_iter().all(|(index, (saved, own))| {
            let writable = if index == STATUS_B { ALARM_ENABLE } else { 0 };
            saved & !writable == own & !writable
        });
        require_same(PART, "fixed register", is_same)?;
        (state.index, state.memory, state.status_c) = (saved.index, memory, saved.status_c);
        state.set_alarm(seconds(self.time.now()));
        (self.line)(saved.status_c != 0);
        drop(state);
        (self.changed)();
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

    /// Finds out when the alarm is due, after `now`.
    fn set_alarm(&mut self, now: u64) {
        let byte = |index: u8| self.memory.get(usize::from(index)).copied().unwrap_or(0);
        let [second, minute, hour] = ALARM.map(byte);
        let is_on = byte(STATUS_B) & ALARM_ENABLE != 0;
        self.alarm = if is_on { Alarm { hour, minute, second }.next(now) } else { None };
    }

    /// Returns `true` if the alarm may be due at another time.
    fn write(&mut self, value: u8, now: u64) -> bool {
        if self.index == STATUS_B
            && let Some(status) = self.memory.get_mut(usize::from(STATUS_B))
        {
            *status = *status & !ALARM_ENABLE | value & ALARM_ENABLE;
            self.set_alarm(now);
            return true;
        }
        let fixed = self.is_fixed(self.index);
        if let Some(byte) = self.memory.get_mut(usize::from(self.index)).filter(|_| !fixed) {
            *byte = value;
        }
        let is_alarm = ALARM.contains(&self.index);
        if is_alarm {
            self.set_alarm(now);
        }
        is_alarm
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Device for Clock {
    fn read(&self, offset: u64, width: Width) -> u64 {
        match (offset, width.bytes()) {
            (1, 1) => {
                let mut state = self.lock();
                if state.index != STATUS_C {
                    return state.read(self.time.now()).into();
                }
                let flags = std::mem::take(&mut state.status_c);
                if flags != 0 {
                    (self.line)(false);
                }
                flags.into()
            }
            _ => width.all_ones(),
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let [value, ..] = value.to_le_bytes();
        match (offset, width.bytes()) {
            // The uppermost bit masks NMI, which this machine's clock has nothing to do with.
            (0, 1) => self.lock().index = value & INDEX,
            (1, 1) => {
                let now = seconds(self.time.now());
                // Not under the lock, which the owner of the clock takes then.
                if self.lock().write(value, now) {
                    (self.changed)();
                }
            }
            _ => {}
        }
    }
}

/// Number of whole seconds since the Unix epoch.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
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
#[path = "clock_test.rs"]
mod tests;
