//! The saved state of the timer.

pub use super::channel::Access;
use super::channel::{Channel, Next};
pub use super::run::Mode;
use super::run::Run;
use super::{Pit, ticks};
use nerite_saved::{RestoreError, check_version, refuse};

/// Version of [`SavedPit`].
pub const PIT_VERSION: u32 = 1;

/// More ticks than a counter ever counts.
const MAX_ELAPSED: u64 = 1 << 56;
/// The largest count.
const MAX_COUNT: u32 = 0x1_0000;

/// State of the timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedPit {
    /// [`PIT_VERSION`].
    pub version: u32,
    /// The counters.
    pub channels: [SavedChannel; 3],
    /// Bit 1 of port 0x61.
    pub is_speaker_on: bool,
    /// Nanoseconds before which a counter 0 that is too fast does not interrupt again.
    pub not_before: u64,
}

/// State of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedChannel {
    /// Level of the gate.
    pub gate: bool,
    /// Mode.
    pub mode: Mode,
    /// It counts in BCD.
    pub is_bcd: bool,
    /// Bytes of the count that are read and written.
    pub access: Access,
    /// The low byte of a count whose high byte is to come.
    pub written_low: Option<u8>,
    /// The next read is of the high byte.
    pub reads_high: bool,
    /// Latched status.
    pub latched_status: Option<u8>,
    /// Latched count, and `true` if its low byte has been read.
    pub latched_count: Option<(u16, bool)>,
    /// The count written last, 1 to 65536.
    pub initial: Option<u32>,
    /// The count written last is not in the counter yet.
    pub is_null: bool,
    /// The counter's value while it does not run.
    pub idle: u16,
    /// Counting.
    pub run: Option<SavedRun>,
    /// Ticks until another count is loaded, and the counting from then on.
    pub next: Option<(u64, SavedRun)>,
    /// The output has risen without an interrupt so far.
    pub rose: bool,
}

/// Counting since a count was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedRun {
    /// The count that was loaded, 1 to 65536.
    pub count: u32,
    /// Ticks counted since.
    pub elapsed: u64,
    /// The gate holds it.
    pub is_held: bool,
}

impl SavedRun {
    fn new(run: &Run, tick: u64) -> Self {
        let elapsed = run.held.unwrap_or_else(|| tick.wrapping_sub(run.start));
        Self { count: run.count, elapsed, is_held: run.held.is_some() }
    }

    fn restore(&self, tick: u64) -> Result<Run, RestoreError> {
        refuse("8254", "count", self.count == 0 || self.count > MAX_COUNT)?;
        refuse("8254", "elapsed", self.elapsed > MAX_ELAPSED)?;
        let start = tick.wrapping_sub(self.elapsed);
        Ok(Run { start, count: self.count, held: self.is_held.then_some(self.elapsed) })
    }
}

impl SavedChannel {
    fn new(channel: &Channel, tick: u64) -> Self {
        Self {
            gate: channel.gate,
            mode: channel.mode,
            is_bcd: channel.is_bcd,
            access: channel.access,
            written_low: channel.written_low,
            reads_high: channel.reads_high,
            latched_status: channel.latched_status,
            latched_count: channel.latched_count,
            initial: channel.initial,
            is_null: channel.is_null,
            idle: channel.idle,
            run: channel.run.map(|run| SavedRun::new(&run, tick)),
            next: channel
                .next
                .map(|next| (next.at.saturating_sub(tick), SavedRun::new(&next.run, next.at))),
            rose: channel.rose,
        }
    }

    fn restore(&self, tick: u64) -> Result<Channel, RestoreError> {
        refuse(
            "8254",
            "initial",
            self.initial.is_some_and(|count| count == 0 || count > MAX_COUNT),
        )?;
        refuse("8254", "next", self.next.is_some_and(|(left, _)| left > MAX_COUNT.into()))?;
        let is_periodic = matches!(self.mode, Mode::RateGenerator | Mode::SquareWave);
        refuse("8254", "next", self.next.is_some() && !(is_periodic && self.run.is_some()))?;
        let next = |(left, run): (u64, SavedRun)| {
            let at = tick.saturating_add(left);
            Ok(Next { at, run: run.restore(at)? })
        };
        Ok(Channel {
            gate: self.gate,
            mode: self.mode,
            is_bcd: self.is_bcd,
            access: self.access,
            written_low: self.written_low,
            reads_high: self.reads_high,
            latched_status: self.latched_status,
            latched_count: self.latched_count,
            initial: self.initial,
            is_null: self.is_null,
            idle: self.idle,
            run: self.run.map(|run| run.restore(tick)).transpose()?,
            next: self.next.map(next).transpose()?,
            seen: tick,
            rose: self.rose,
        })
    }
}

impl Pit {
    /// The state at `now`, in nanoseconds.
    #[must_use]
    pub fn save(&self, now: u64) -> SavedPit {
        let save = |channel: &Channel| {
            let mut channel = channel.clone();
            let tick = channel.settle(ticks(now));
            SavedChannel::new(&channel, tick)
        };
        SavedPit {
            version: PIT_VERSION,
            channels: self.channels.each_ref().map(save),
            is_speaker_on: self.is_speaker_on,
            not_before: self.not_before.saturating_sub(now).min(super::PIT_MIN_PERIOD),
        }
    }

    /// The timer with a saved state, which resumes at `now`, in nanoseconds.
    ///
    /// # Errors
    /// If the state is of another version, or not one that the timer can have.
    pub fn restore(saved: &SavedPit, now: u64) -> Result<Self, RestoreError> {
        check_version("8254", saved.version, PIT_VERSION)?;
        let [first, second, third] = &saved.channels;
        refuse("8254", "gate", !first.gate || !second.gate)?;
        refuse("8254", "not_before", saved.not_before > super::PIT_MIN_PERIOD)?;
        let tick = ticks(now);
        Ok(Self {
            channels: [first.restore(tick)?, second.restore(tick)?, third.restore(tick)?],
            is_speaker_on: saved.is_speaker_on,
            not_before: now.saturating_add(saved.not_before),
        })
    }
}
