//! An 8254 programmable interval timer (8254 data sheet), and port 0x61 of a PC.

mod channel;
mod run;
mod saved;

use channel::Channel;
pub use saved::{Access, Mode, PIT_VERSION, SavedChannel, SavedPit, SavedRun};

/// Frequency of the timer's clock in Hz, as in KVM.
pub const PIT_HZ: u64 = 1_193_182;
/// Ports of the three counters and of the control word, and the port with the gate of counter 2.
pub const PIT_PORTS: [u16; 5] = [0x40, 0x41, 0x42, 0x43, SPEAKER_PORT];
/// The shortest time between two interrupts of a periodic counter in nanoseconds, as KVM's. Those
/// of a faster one come that far apart.
pub const PIT_MIN_PERIOD: u64 = 200_000;

const CONTROL_PORT: u16 = 0x43;
const SPEAKER_PORT: u16 = 0x61;

/// Bits of port 0x61: gate of counter 2, speaker, the toggle of memory refresh, output of counter
/// 2.
const GATE: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
const REFRESH: u8 = 1 << 4;
const OUTPUT: u8 = 1 << 5;
/// The refresh bit toggles every 2^14 ns, about the 15 us of a PC, as in KVM.
const REFRESH_SHIFT: u32 = 14;

/// Control words: read-back command, and in it the latches that are not wanted.
const READ_BACK: u8 = 0b1100_0000;
const NO_COUNT: u8 = 1 << 5;
const NO_STATUS: u8 = 1 << 4;

const NANOSECONDS: u128 = 1_000_000_000;

/// Ticks of the timer's clock until this moment.
fn ticks(nanoseconds: u64) -> u64 {
    let ticks = u128::from(nanoseconds).saturating_mul(PIT_HZ.into()) / NANOSECONDS;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// The first nanosecond of a tick.
fn nanoseconds(tick: u64) -> u64 {
    let time = u128::from(tick).saturating_mul(NANOSECONDS).div_ceil(PIT_HZ.into());
    u64::try_from(time).unwrap_or(u64::MAX)
}

/// The timer.
///
/// The gates of counters 0 and 1 are high, as on a PC; that of counter 2 is bit 0 of port 0x61.
/// Counter 0's output is the interrupt: [`advance`](Self::advance) says when it has risen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pit {
    channels: [Channel; 3],
    is_speaker_on: bool,
    /// Nanoseconds before which a counter that is too fast does not interrupt again.
    not_before: u64,
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

impl Pit {
    /// The timer after power-up: no counter runs.
    #[must_use]
    pub const fn new() -> Self {
        let channels = [Channel::new(true), Channel::new(true), Channel::new(false)];
        Self { channels, is_speaker_on: false, not_before: 0 }
    }

    /// Moves time on to `now`, in nanoseconds. Returns `true` if counter 0's output has risen since
    /// the last call: an interrupt. Several rises count as one.
    pub fn advance(&mut self, now: u64) -> bool {
        let [first, ..] = &mut self.channels;
        first.settle(ticks(now));
        let is_early = first.is_fast() && now < self.not_before;
        if is_early || !first.take_rise() {
            return false;
        }
        self.not_before = now.saturating_add(PIT_MIN_PERIOD);
        true
    }

    /// Nanoseconds at which [`Self::advance`] is needed next.
    #[must_use]
    pub fn next_event(&self) -> Option<u64> {
        let [first, ..] = &self.channels;
        let at = nanoseconds(first.next_rise()?);
        Some(if first.is_fast() { at.max(self.not_before) } else { at })
    }

    /// Frequency of the square wave that counter 2 makes on the speaker in Hz; `None` while that is
    /// off.
    #[must_use]
    pub fn tone(&self) -> Option<u64> {
        let [.., third] = &self.channels;
        third.frequency().filter(|_| self.is_speaker_on)
    }

    /// Reads a byte from one of [`PIT_PORTS`] at `now`, in nanoseconds. Returns `None` for another
    /// port. The control word reads as zero.
    pub fn read_port(&mut self, port: u16, now: u64) -> Option<u8> {
        let tick = ticks(now);
        match port {
            CONTROL_PORT => Some(0),
            SPEAKER_PORT => {
                let [.., third] = &mut self.channels;
                let tick = third.settle(tick);
                let bit = |bit, is_set| if is_set { bit } else { 0 };
                let refresh = now >> REFRESH_SHIFT & 1 == 1;
                Some(
                    bit(GATE, third.gate())
                        | bit(SPEAKER, self.is_speaker_on)
                        | bit(REFRESH, refresh)
                        | bit(OUTPUT, third.output(tick)),
                )
            }
            _ => self.channel(port).map(|channel| channel.read(tick)),
        }
    }

    /// Writes a byte to one of [`PIT_PORTS`] at `now`, in nanoseconds. Returns `false` for another
    /// port.
    pub fn write_port(&mut self, port: u16, value: u8, now: u64) -> bool {
        let tick = ticks(now);
        match port {
            CONTROL_PORT => self.write_control(value, tick),
            SPEAKER_PORT => {
                self.is_speaker_on = value & SPEAKER != 0;
                let [.., third] = &mut self.channels;
                third.set_gate(value & GATE != 0, tick);
            }
            _ => {
                let Some(channel) = self.channel(port) else { return false };
                channel.write(value, tick);
            }
        }
        true
    }

    fn write_control(&mut self, value: u8, tick: u64) {
        if value & READ_BACK == READ_BACK {
            for (number, channel) in (1_u32..).zip(&mut self.channels) {
                if value.wrapping_shr(number) & 1 == 0 {
                    continue;
                }
                if value & NO_COUNT == 0 {
                    channel.latch_count(tick);
                }
                if value & NO_STATUS == 0 {
                    channel.latch_status(tick);
                }
            }
        } else if let Some(channel) = self.channels.get_mut(usize::from(value >> 6)) {
            channel.control(value, tick);
        }
    }

    fn channel(&mut self, port: u16) -> Option<&mut Channel> {
        self.channels.get_mut(usize::from(port.checked_sub(0x40)?))
    }
}

#[cfg(test)]
#[path = "pit_test.rs"]
mod tests;
