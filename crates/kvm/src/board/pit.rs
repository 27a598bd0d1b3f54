//! The interval timer, whose counts KVM keeps by the host's clock.

use std::time::Duration;

use kvm_bindings::{KVM_PIT_FLAGS_SPEAKER_DATA_ON, kvm_pit_channel_state, kvm_pit_state2};
use nerite_hypervisor::Error;
use nerite_irqchip::{Access, Mode, PIT_HZ, PIT_VERSION, SavedChannel, SavedPit, SavedRun};

/// `RW_STATE_*` of KVM's 8254.
const LOW: u8 = 1;
const HIGH: u8 = 2;
const FIRST: u8 = 3;
const SECOND: u8 = 4;
/// The mode of a counter that has none yet.
const NO_MODE: u8 = 0xff;
/// The largest count, which is written as 0.
const MAX_COUNT: u32 = 0x1_0000;
const NANOSECONDS: u128 = 1_000_000_000;

pub(super) fn pit_from_kvm(state: &kvm_pit_state2, now: i64) -> SavedPit {
    SavedPit {
        version: PIT_VERSION,
        channels: channels_from_kvm(state, now),
        is_speaker_on: state.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON != 0,
        not_before: 0,
    }
}

pub(super) fn pit_to_kvm(saved: &SavedPit, state: &mut kvm_pit_state2, now: i64) {
    for (channel, saved) in state.channels.iter_mut().zip(&saved.channels) {
        channel_to_kvm(saved, channel, now);
    }
    state.flags &= !KVM_PIT_FLAGS_SPEAKER_DATA_ON;
    if saved.is_speaker_on {
        state.flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
    }
}

/// KVM does not say when counter 0 was loaded. One that counts once is taken for loaded just now:
/// its interrupt rather comes twice than never.
fn channels_from_kvm(state: &kvm_pit_state2, now: i64) -> [SavedChannel; 3] {
    let mut channels = state.channels.map(|channel| channel_from_kvm(&channel, now));
    let [first, ..] = &mut channels;
    let is_periodic = matches!(first.mode, Mode::RateGenerator | Mode::SquareWave);
    if let Some(run) =
        first.run.as_mut().filter(|run| !is_periodic && run.elapsed >= u64::from(run.count))
    {
        run.elapsed = 0;
    }
    channels
}

const MODES: [Mode; 6] = [
    Mode::TerminalCount,
    Mode::OneShot,
    Mode::RateGenerator,
    Mode::SquareWave,
    Mode::SoftwareStrobe,
    Mode::HardwareStrobe,
];

fn channel_from_kvm(state: &kvm_pit_channel_state, now: i64) -> SavedChannel {
    let mode = MODES.get(usize::from(state.mode)).copied();
    let count = state.count.clamp(1, MAX_COUNT);
    let passed = u64::try_from(now.saturating_sub(state.count_load_time)).unwrap_or(0);
    let ticks =
        u128::from(passed).saturating_mul(PIT_HZ.into()).checked_div(NANOSECONDS).unwrap_or(0);
    let elapsed = u64::try_from(ticks).unwrap_or(0);
    let run = SavedRun { count, elapsed, is_held: false };
    let is_first_read = state.count_latched == HIGH && state.rw_mode == FIRST;
    SavedChannel {
        gate: state.gate != 0,
        mode: mode.unwrap_or(Mode::TerminalCount),
        is_bcd: state.bcd != 0,
        access: match state.rw_mode {
            LOW => Access::Low,
            HIGH => Access::High,
            _ => Access::Both,
        },
        written_low: (state.write_state == SECOND).then_some(state.write_latch),
        reads_high: state.read_state == SECOND,
        latched_status: (state.status_latched != 0).then_some(state.status),
        latched_count: (state.count_latched != 0).then_some((state.latched_count, is_first_read)),
        initial: mode.map(|_| count),
        is_null: mode.is_none(),
        idle: 0,
        run: mode.map(|_| run),
        next: None,
        rose: false,
    }
}

/// KVM starts counter 0 with its count at this moment: a periodic one begins a new period, and one
/// that ends once counts what is left.
fn channel_to_kvm(saved: &SavedChannel, state: &mut kvm_pit_channel_state, now: i64) {
    let is_periodic = matches!(saved.mode, Mode::RateGenerator | Mode::SquareWave);
    let elapsed = saved.run.map_or(0, |run| run.elapsed);
    let whole = saved.initial.unwrap_or(MAX_COUNT);
    let left = u64::from(whole).checked_sub(elapsed).and_then(|left| u32::try_from(left).ok());
    let (count, passed) = match left.filter(|left| *left > 0 && !is_periodic) {
        Some(left) => (left, 0),
        None => (whole, elapsed),
    };
    let nanoseconds = u128::from(passed).saturating_mul(NANOSECONDS).checked_div(PIT_HZ.into());
    let passed = nanoseconds.and_then(|passed| i64::try_from(passed).ok()).unwrap_or(0);
    let (access, state_of) = match saved.access {
        Access::Low => (LOW, LOW),
        Access::High => (HIGH, HIGH),
        Access::Both => (FIRST, FIRST),
    };
    let number =
        MODES.iter().position(|mode| *mode == saved.mode).and_then(|at| u8::try_from(at).ok());
    *state = kvm_pit_channel_state {
        count,
        latched_count: saved.latched_count.map_or(0, |(count, _)| count),
        count_latched: match saved.latched_count {
            None => 0,
            Some((_, true)) => HIGH,
            Some((_, false)) => access,
        },
        status_latched: saved.latched_status.is_some().into(),
        status: saved.latched_status.unwrap_or(0),
        read_state: if saved.reads_high { SECOND } else { state_of },
        write_state: if saved.written_low.is_some() { SECOND } else { state_of },
        write_latch: saved.written_low.unwrap_or(0),
        rw_mode: access,
        mode: number.filter(|_| saved.run.is_some()).unwrap_or(NO_MODE),
        bcd: saved.is_bcd.into(),
        gate: saved.gate.into(),
        count_load_time: now.saturating_sub(passed),
    };
}

/// The host's monotonic clock in nanoseconds, by which KVM notes when a count was loaded.
pub(super) fn monotonic() -> Result<i64, Error> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a `timespec` that the call fills in.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    if failed != 0 {
        let source = std::io::Error::last_os_error();
        return Err(Error::Call { operation: "clock_gettime", source });
    }
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    let now = Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds));
    Ok(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use nerite_irqchip::Pit;

    use super::*;

    const NOW: i64 = 10_000_000_000;

    #[test]
    fn a_pit_comes_back_with_what_is_left() {
        let mut pit = Pit::new();
        // Counter 0 periodic with 10 000, counter 2 once with 60 000, its gate open.
        for (port, value) in [(0x43, 0x34), (0x40, 0x10), (0x40, 0x27), (0x61, 1), (0x43, 0xb0)] {
            assert!(pit.write_port(port, value, 0));
        }
        for value in [0x60, 0xea] {
            assert!(pit.write_port(0x42, value, 0));
        }
        let saved = pit.save(20_000_000);
        let mut state = kvm_pit_state2::default();
        pit_to_kvm(&saved, &mut state, NOW);
        let again = pit_from_kvm(&state, NOW);
        let elapsed = |pit: &SavedPit, at: usize| pit.channels[at].run.unwrap().elapsed;
        assert!(elapsed(&saved, 0).abs_diff(elapsed(&again, 0)) <= 1);
        assert_eq!(again.channels[0].initial, Some(10_000));
        assert_eq!(
            again.channels[2].run.unwrap(),
            SavedRun {
                count: 60_000 - u32::try_from(elapsed(&saved, 2)).unwrap(),
                elapsed: 0,
                is_held: false,
            }
        );
        // A counter that was never programmed.
        assert_eq!((state.channels[1].mode, again.channels[1].run), (NO_MODE, None));
        assert!(Pit::restore(&again, 0).is_ok());
    }
}
