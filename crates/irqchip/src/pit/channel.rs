//! One counter of the timer (8254 data sheet, "read/write operations" and "gate pin operations"),
//! in ticks of its clock.

use super::run::{Mode, Run};

/// Status byte: output, null count.
const OUTPUT: u8 = 1 << 7;
const NULL_COUNT: u8 = 1 << 6;
/// Counts of a counter in binary and in BCD.
const BINARY: u32 = 0x1_0000;
const DECIMAL: u32 = 10_000;

/// The bytes of a count that are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Access {
    /// The low one.
    Low,
    /// The high one.
    High,
    /// The low one, then the high one.
    Both,
}

impl Access {
    const fn bits(self) -> u8 {
        match self {
            Self::Low => 0x10,
            Self::High => 0x20,
            Self::Both => 0x30,
        }
    }
}

/// A count that is loaded at the end of the present period or half of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) at: u64,
    pub(super) run: Run,
}

/// One counter. All methods but [`next_rise`](Self::next_rise) move it on to the tick that they
/// get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Channel {
    pub(super) gate: bool,
    pub(super) mode: Mode,
    pub(super) is_bcd: bool,
    pub(super) access: Access,
    /// The low byte of a count whose high byte is to come.
    pub(super) written_low: Option<u8>,
    /// The next read is of the high byte.
    pub(super) reads_high: bool,
    pub(super) latched_status: Option<u8>,
    /// A latched count, and `true` if its low byte has been read.
    pub(super) latched_count: Option<(u16, bool)>,
    /// The count register: the count written last, 1 to 65536.
    pub(super) initial: Option<u32>,
    /// The count register is not in the counter yet.
    pub(super) is_null: bool,
    /// Value of the counter while it does not run.
    pub(super) idle: u16,
    pub(super) run: Option<Run>,
    pub(super) next: Option<Next>,
    /// The tick that it has been moved on to.
    pub(super) seen: u64,
    /// The output has risen since this was last taken.
    pub(super) rose: bool,
}

impl Channel {
    pub(super) const fn new(gate: bool) -> Self {
        Self {
            gate,
            mode: Mode::TerminalCount,
            is_bcd: false,
            access: Access::Both,
            written_low: None,
            reads_high: false,
            latched_status: None,
            latched_count: None,
            initial: None,
            is_null: true,
            idle: 0,
            run: None,
            next: None,
            seen: 0,
            rose: false,
        }
    }

    pub(super) const fn gate(&self) -> bool {
        self.gate
    }

    /// Returns `true` if its periods, present or next, are shorter than interrupts may come.
    pub(super) fn is_fast(&self) -> bool {
        let is_short = |run: Run| super::nanoseconds(run.period()) < super::PIT_MIN_PERIOD;
        self.mode.is_periodic()
            && (self.run.is_some_and(is_short) || self.next.is_some_and(|next| is_short(next.run)))
    }

    const fn modulus(&self) -> u32 {
        if self.is_bcd { DECIMAL } else { BINARY }
    }

    /// Moves on to a tick, and notes whether the output has risen on the way. Returns the tick,
    /// which is never one that has passed.
    pub(super) fn settle(&mut self, tick: u64) -> u64 {
        let tick = tick.max(self.seen);
        if let Some(next) = self.next.filter(|next| next.at <= tick) {
            self.note_rises(next.at);
            self.run = Some(next.run);
            self.next = None;
            self.is_null = false;
        }
        self.note_rises(tick);
        tick
    }

    fn note_rises(&mut self, until: u64) {
        let rise = self.run.and_then(|run| run.next_rise(self.mode, self.seen));
        self.rose |= rise.is_some_and(|rise| rise <= until);
        self.seen = until;
    }

    pub(super) fn take_rise(&mut self) -> bool {
        std::mem::take(&mut self.rose)
    }

    /// The tick at which the output rises next, or has risen if that was not taken.
    pub(super) fn next_rise(&self) -> Option<u64> {
        if self.rose {
            return Some(self.seen);
        }
        let rise = self.run.and_then(|run| run.next_rise(self.mode, self.seen));
        match self.next.filter(|next| rise.is_none_or(|rise| rise > next.at)) {
            Some(next) => next.run.next_rise(self.mode, next.at),
            None => rise,
        }
    }

    pub(super) fn output(&self, tick: u64) -> bool {
        match self.run {
            Some(run) => run.output(self.mode, tick),
            None => self.mode != Mode::TerminalCount,
        }
    }

    /// Frequency of the square wave in Hz, if it makes one.
    pub(super) fn frequency(&self) -> Option<u64> {
        let run = self.run.filter(|run| self.mode == Mode::SquareWave && run.held.is_none())?;
        super::PIT_HZ.checked_div(run.period())
    }

    /// Value of the counter.
    fn count(&self, tick: u64) -> u16 {
        let Some(run) = self.run else { return self.idle };
        let shown = run.shown(self.mode, self.modulus(), tick);
        u16::try_from(if self.is_bcd { to_bcd(shown) } else { shown }).unwrap_or(0)
    }

    /// Counter latch command (8254, "counter latch command"): the second of two is ignored.
    pub(super) fn latch_count(&mut self, tick: u64) {
        let tick = self.settle(tick);
        if self.latched_count.is_none() {
            self.latched_count = Some((self.count(tick), false));
        }
    }

    /// Latches the status (8254, "read-back command").
    pub(super) fn latch_status(&mut self, tick: u64) {
        let tick = self.settle(tick);
        if self.latched_status.is_none() {
            let output = if self.output(tick) { OUTPUT } else { 0 };
            let null = if self.is_null { NULL_COUNT } else { 0 };
            let mode = (self.mode as u8) << 1;
            self.latched_status =
                Some(output | null | self.access.bits() | mode | u8::from(self.is_bcd));
        }
    }

    /// A control word for this counter: a latch command, or a new mode, in which it waits for a
    /// count.
    pub(super) fn control(&mut self, value: u8, tick: u64) {
        let access = match value >> 4 & 3 {
            0 => return self.latch_count(tick),
            1 => Access::Low,
            2 => Access::High,
            _ => Access::Both,
        };
        let tick = self.settle(tick);
        *self = Self {
            mode: Mode::from_control(value),
            is_bcd: value & 1 != 0,
            access,
            idle: self.count(tick),
            seen: tick,
            rose: self.rose,
            ..Self::new(self.gate)
        };
    }

    pub(super) fn read(&mut self, tick: u64) -> u8 {
        let tick = self.settle(tick);
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let (count, latched) = match self.latched_count {
            Some((count, is_low_read)) => (count, Some(is_low_read)),
            None => (self.count(tick), None),
        };
        let [low, high] = count.to_le_bytes();
        let is_high = match self.access {
            Access::Low => false,
            Access::High => true,
            Access::Both => latched.unwrap_or(self.reads_high),
        };
        let is_first_of_two = self.access == Access::Both && !is_high;
        if latched.is_some() {
            self.latched_count = is_first_of_two.then_some((count, true));
        } else {
            self.reads_high = is_first_of_two;
        }
        if is_high { high } else { low }
    }

    /// Writes a byte of the count.
    pub(super) fn write(&mut self, value: u8, tick: u64) {
        let tick = self.settle(tick);
        let count = match (self.access, self.written_low.take()) {
            (Access::Low, _) => u16::from(value),
            (Access::High, _) => u16::from_le_bytes([0, value]),
            (Access::Both, Some(low)) => u16::from_le_bytes([low, value]),
            (Access::Both, None) => {
                self.written_low = Some(value);
                // In mode 0 the first byte of a count stops the last one.
                if self.mode == Mode::TerminalCount {
                    (self.idle, self.run) = (self.count(tick), None);
                }
                return;
            }
        };
        let count = if self.is_bcd { from_bcd(count) } else { count.into() };
        self.load(if count == 0 { self.modulus() } else { count }, tick);
    }

    fn load(&mut self, count: u32, tick: u64) {
        self.initial = Some(count);
        self.is_null = true;
        if self.mode.is_triggered() {
            return;
        }
        match self.run.filter(|_| self.mode.is_periodic()) {
            // The trigger loads it.
            Some(run) if run.held.is_some() => {}
            Some(run) => self.next = Some(self.successor(&run, count, tick)),
            None => {
                let held = if self.gate { None } else { Some(0) };
                self.run = Some(Run { start: tick, count, held });
                self.is_null = false;
            }
        }
    }

    /// A new count in mode 2 is loaded at the end of the period, in mode 3 at the end of its half.
    fn successor(&self, run: &Run, count: u32, tick: u64) -> Next {
        let (phase, period, high) = (run.phase(tick), run.period(), run.high_half());
        let new = Run { start: 0, count, held: None };
        let ends_high = self.mode == Mode::SquareWave && phase < high;
        let left = if ends_high { high } else { period }.saturating_sub(phase);
        let at = tick.saturating_add(left);
        // It continues with the other half.
        let start = if ends_high { at.wrapping_sub(new.high_half()) } else { at };
        Next { at, run: Run { start, ..new } }
    }

    /// Sets the gate (8254, "gate pin operations").
    pub(super) fn set_gate(&mut self, gate: bool, tick: u64) {
        let tick = self.settle(tick);
        let was_high = std::mem::replace(&mut self.gate, gate);
        if gate == was_high {
            return;
        }
        if gate && (self.mode.is_triggered() || self.mode.is_periodic()) {
            if let Some(count) = self.initial {
                self.run = Some(Run { start: tick, count, held: None });
                self.next = None;
                self.is_null = false;
            }
        } else if !self.mode.is_triggered() {
            self.next = None;
            if let Some(run) = &mut self.run {
                let elapsed = run.elapsed(tick);
                run.start = tick.wrapping_sub(elapsed);
                run.held = if gate { None } else { Some(elapsed) };
            }
        }
    }
}

/// The number that four digits stand for.
fn from_bcd(digits: u16) -> u32 {
    [12, 8, 4, 0].into_iter().fold(0_u32, |number, shift| {
        let digit = u32::from(digits >> shift & 0xf);
        number.saturating_mul(10).saturating_add(digit)
    })
}

/// The four digits of a number below 10 000.
fn to_bcd(number: u32) -> u32 {
    let digit = |weight| number.checked_div(weight).unwrap_or(0) % 10;
    [1000, 100, 10, 1].into_iter().fold(0, |digits, weight| (digits << 4) | digit(weight))
}
