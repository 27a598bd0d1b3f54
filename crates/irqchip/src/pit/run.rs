//! Counting in the modes of the timer (8254 data sheet, "mode definitions"), by arithmetic: no step
//! for a tick.

/// Mode of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Mode {
    /// Mode 0: the output rises at the terminal count.
    TerminalCount,
    /// Mode 1: the gate triggers a low pulse.
    OneShot,
    /// Mode 2: the output is low for one tick of each period.
    RateGenerator,
    /// Mode 3: the output is high for one half of each period.
    SquareWave,
    /// Mode 4: the count triggers a strobe of one tick.
    SoftwareStrobe,
    /// Mode 5: the gate triggers it.
    HardwareStrobe,
}

impl Mode {
    pub(super) const fn from_control(value: u8) -> Self {
        match value >> 1 & 7 {
            0 => Self::TerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::RateGenerator,
            3 | 7 => Self::SquareWave,
            4 => Self::SoftwareStrobe,
            _ => Self::HardwareStrobe,
        }
    }

    pub(super) const fn is_periodic(self) -> bool {
        matches!(self, Self::RateGenerator | Self::SquareWave)
    }

    pub(super) const fn is_triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }
}

/// Counting, since a count was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The tick at which the count was loaded. It may lie before the beginning of time: differences
    /// wrap around.
    pub(super) start: u64,
    /// The count that was loaded, 1 to 65536.
    pub(super) count: u32,
    /// Ticks counted when the gate stopped it.
    pub(super) held: Option<u64>,
}

impl Run {
    pub(super) fn elapsed(&self, tick: u64) -> u64 {
        self.held.unwrap_or_else(|| tick.wrapping_sub(self.start))
    }

    /// Ticks of the period that the count stands for.
    pub(super) fn period(&self) -> u64 {
        u64::from(self.count.max(1))
    }

    /// Ticks since the last period's beginning.
    pub(super) fn phase(&self, tick: u64) -> u64 {
        self.elapsed(tick).checked_rem(self.period()).unwrap_or(0)
    }

    /// Ticks of a square wave's high half, which has the odd one.
    pub(super) fn high_half(&self) -> u64 {
        self.period().div_ceil(2)
    }

    pub(super) fn output(&self, mode: Mode, tick: u64) -> bool {
        match mode {
            Mode::TerminalCount | Mode::OneShot => self.elapsed(tick) >= self.period(),
            Mode::RateGenerator | Mode::SquareWave if self.held.is_some() => true,
            Mode::RateGenerator => {
                self.phase(tick).saturating_add(1) < self.period() || self.count <= 1
            }
            Mode::SquareWave => self.phase(tick) < self.high_half(),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => self.elapsed(tick) != self.period(),
        }
    }

    /// Value of the counter, modulo the number of its counts.
    pub(super) fn shown(&self, mode: Mode, modulus: u32, tick: u64) -> u32 {
        let modulus = u64::from(modulus);
        let shown = match mode {
            Mode::RateGenerator => self.period().saturating_sub(self.phase(tick)),
            Mode::SquareWave => {
                let (phase, high) = (self.phase(tick), self.high_half());
                let within = if phase < high { phase } else { phase.saturating_sub(high) };
                let even = self.period() & !1;
                even.saturating_sub(within.saturating_mul(2))
            }
            _ => {
                let passed = self.elapsed(tick).checked_rem(modulus).unwrap_or(0);
                self.period().saturating_add(modulus).saturating_sub(passed)
            }
        };
        u32::try_from(shown.checked_rem(modulus).unwrap_or(0)).unwrap_or(0)
    }

    /// The first tick after `seen` at which the output rises.
    pub(super) fn next_rise(&self, mode: Mode, seen: u64) -> Option<u64> {
        if self.held.is_some() {
            return None;
        }
        let (passed, period) = (self.elapsed(seen), self.period());
        let rise = match mode {
            Mode::TerminalCount | Mode::OneShot => period,
            Mode::SoftwareStrobe | Mode::HardwareStrobe => period.saturating_add(1),
            Mode::RateGenerator | Mode::SquareWave => {
                passed.checked_div(period)?.saturating_add(1).saturating_mul(period)
            }
        };
        (rise > passed).then(|| self.start.wrapping_add(rise))
    }
}
