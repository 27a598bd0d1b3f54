use proptest::prelude::*;

use super::*;

/// Programs a counter: mode, then both bytes of its count.
fn program(pit: &mut Pit, counter: u8, mode: u8, count: u16, tick: u64) {
    let (port, now) = (0x40 + u16::from(counter), nanoseconds(tick));
    pit.write_port(CONTROL_PORT, counter << 6 | 0x30 | mode << 1, now);
    for byte in count.to_le_bytes() {
        assert!(pit.write_port(port, byte, now));
    }
}

/// The count of a counter, latched and read.
fn count(pit: &mut Pit, counter: u8, tick: u64) -> u16 {
    let (port, now) = (0x40 + u16::from(counter), nanoseconds(tick));
    pit.write_port(CONTROL_PORT, counter << 6, now);
    u16::from_le_bytes([0, 0].map(|_| pit.read_port(port, now).unwrap()))
}

/// The status of a counter, read back.
fn status(pit: &mut Pit, counter: u8, tick: u64) -> u8 {
    pit.write_port(CONTROL_PORT, READ_BACK | NO_COUNT | 2 << counter, nanoseconds(tick));
    pit.read_port(0x40 + u16::from(counter), nanoseconds(tick)).unwrap()
}

fn set_gate(pit: &mut Pit, gate: bool, tick: u64) {
    pit.write_port(SPEAKER_PORT, gate.into(), nanoseconds(tick));
}

fn output(pit: &mut Pit, tick: u64) -> bool {
    pit.read_port(SPEAKER_PORT, nanoseconds(tick)).unwrap() & OUTPUT != 0
}

#[test]
fn a_tick_begins_at_its_first_nanosecond() {
    for tick in [0, 1, 2, 1000, PIT_HZ, 1 << 40] {
        assert_eq!(ticks(nanoseconds(tick)), tick);
        assert!(tick == 0 || ticks(nanoseconds(tick) - 1) == tick - 1);
    }
    assert_eq!(nanoseconds(PIT_HZ), 1_000_000_000);
    assert!(ticks(u64::MAX) > 1 << 53);
}

/// 8254, mode 0: one interrupt at the terminal count, and on around zero.
#[test]
fn mode_0_interrupts_once() {
    let mut pit = Pit::new();
    assert_eq!((pit.next_event(), pit.advance(1_000_000)), (None, false));
    program(&mut pit, 0, 0, 1000, 5000);
    assert_eq!(pit.next_event(), Some(nanoseconds(6000)));
    assert_eq!((count(&mut pit, 0, 5400), pit.advance(nanoseconds(5999))), (600, false));
    assert_eq!((pit.advance(nanoseconds(6000)), pit.next_event()), (true, None));
    assert_eq!(count(&mut pit, 0, 6001), 0xffff);
    assert_eq!(count(&mut pit, 0, 5500), 0xffff, "time does not go back");
    assert!(!pit.advance(nanoseconds(80_000)));
}

/// 8254, mode 2: an interrupt each period; periods that passed unseen count as one, whatever their
/// number.
#[test]
fn mode_2_interrupts_each_period() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 1193, 0);
    for period in 1..4 {
        assert_eq!(pit.next_event(), Some(nanoseconds(period * 1193)));
        assert_eq!(
            [1192, 1193, 1194].map(|at| pit.advance(nanoseconds(1193 * (period - 1) + at))),
            [false, true, false]
        );
    }
    assert!(pit.advance(1 << 62));
    assert!(pit.next_event().is_some_and(|next| next > 1 << 62 && next < (1 << 62) + 1_000_000));
    // A count of 0 is the largest one.
    pit = Pit::new();
    program(&mut pit, 0, 2, 0, 1 << 53);
    assert_eq!(pit.next_event(), Some(nanoseconds((1 << 53) + 0x1_0000)));
}

/// A periodic counter that is faster than [`PIT_MIN_PERIOD`] interrupts no more often than that.
#[test]
fn a_fast_counter_interrupts_no_faster_than_the_limit() {
    let mut pit = Pit::new();
    for mode in [2, 3] {
        for fast in [1, 2, 3, 50] {
            program(&mut pit, 0, mode, fast, 0);
            let mut now = 0;
            let mut interrupts = 0;
            while let Some(next) = pit.next_event().filter(|next| *next <= 10_000_000) {
                assert!(next > now || interrupts == 0, "time passes");
                now = next;
                interrupts += u32::from(pit.advance(now));
            }
            assert!(interrupts <= 51, "mode {mode}, count {fast}: {interrupts}");
            pit = Pit::new();
        }
    }
}

/// 8254, "counter latch command" and "read-back command": latches stay until they are read, status
/// before count.
#[test]
fn latches_hold_until_they_are_read() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 0x1234, 0);
    let at = nanoseconds;
    pit.write_port(CONTROL_PORT, 0, at(4));
    pit.write_port(CONTROL_PORT, 0, at(8));
    // Status and count of counters 0 and 2.
    pit.write_port(CONTROL_PORT, READ_BACK | 2 | 8, at(12));
    assert_eq!(pit.read_port(0x40, at(16)), Some(0xb4), "output, both bytes, mode 2");
    assert_eq!([0x30, 0x12].map(|_| pit.read_port(0x40, at(20)).unwrap()), [0x30, 0x12]);
    assert_eq!([0, 0].map(|_| pit.read_port(0x40, at(0x34)).unwrap()), [0x00, 0x12]);
    assert_eq!(
        pit.read_port(0x42, at(20)),
        Some(0x70),
        "no output, null count, both bytes, mode 0"
    );
    assert_eq!(pit.read_port(CONTROL_PORT, at(20)), Some(0));
    // A new control word throws latches away.
    pit.write_port(CONTROL_PORT, READ_BACK | 2, at(60));
    pit.write_port(CONTROL_PORT, 0x14, at(60));
    pit.write_port(0x40, 50, at(61));
    assert_eq!([62, 63].map(|tick| pit.read_port(0x40, at(tick)).unwrap()), [49, 48]);
    assert_eq!(status(&mut pit, 0, 64), 0x94);
    // The high byte alone.
    pit.write_port(CONTROL_PORT, 0x24, at(70));
    pit.write_port(0x40, 2, at(70));
    assert_eq!(
        (pit.read_port(0x40, at(71)), pit.read_port(0x40, at(0x200 + 69))),
        (Some(1), Some(0))
    );
}

/// 8254, "write operations": in mode 0 the first byte of a new count stops the last one, and the
/// null count bit shows what is not loaded yet.
#[test]
fn counts_are_loaded_when_the_mode_says() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 1000, 0);
    pit.write_port(0x40, 0x10, nanoseconds(500));
    assert_eq!((pit.next_event(), count(&mut pit, 0, 900)), (None, 500));
    pit.write_port(0x40, 0, nanoseconds(900));
    assert_eq!(pit.next_event(), Some(nanoseconds(916)));
    program(&mut pit, 0, 2, 1000, 2000);
    assert!(pit.advance(nanoseconds(2000)), "mode 0 had come to its end");
    for byte in [0, 3] {
        pit.write_port(0x40, byte, nanoseconds(2100));
    }
    assert_eq!((status(&mut pit, 0, 2999), status(&mut pit, 0, 3000)), (0x74, 0xb4));
    assert!(pit.advance(nanoseconds(3000)));
    assert_eq!(pit.next_event(), Some(nanoseconds(3000 + 0x300)));
    // A control word stops the counter until there is a count.
    pit.write_port(CONTROL_PORT, 0x34, nanoseconds(3001));
    assert_eq!((pit.next_event(), status(&mut pit, 0, 9000)), (None, 0xf4));
}

/// 8254, modes 1 and 5: only the gate starts the counter, again and again.
#[test]
fn the_gate_triggers_modes_1_and_5() {
    let mut pit = Pit::new();
    program(&mut pit, 2, 1, 100, 0);
    assert_eq!((output(&mut pit, 50), status(&mut pit, 2, 200)), (true, 0xf2));
    set_gate(&mut pit, true, 1000);
    set_gate(&mut pit, false, 1010);
    assert_eq!([1000, 1099, 1100].map(|tick| output(&mut pit, tick)), [false, false, true]);
    set_gate(&mut pit, true, 2000);
    set_gate(&mut pit, false, 2090);
    set_gate(&mut pit, true, 2095);
    assert_eq!([2194, 2195].map(|tick| output(&mut pit, tick)), [false, true]);
    program(&mut pit, 2, 5, 10, 3000);
    set_gate(&mut pit, false, 3000);
    set_gate(&mut pit, true, 3001);
    assert_eq!([3010, 3011, 3012].map(|tick| output(&mut pit, tick)), [true, false, true]);
    // Counter 0's gate is always high, and never rises.
    program(&mut pit, 0, 1, 100, 4000);
    assert_eq!(pit.next_event(), None);
}

/// Port 0x61 of a PC: gate, speaker, refresh toggle, output; unknown bits read as zero.
#[test]
fn port_0x61_reads_back_what_it_controls() {
    let mut pit = Pit::new();
    pit.write_port(SPEAKER_PORT, 0xff, 0);
    assert_eq!(
        (pit.read_port(SPEAKER_PORT, 0), pit.read_port(SPEAKER_PORT, 1 << 14)),
        (Some(0x03), Some(0x13))
    );
    assert_eq!(pit.tone(), None);
    program(&mut pit, 2, 3, 1193, 100);
    assert_eq!(pit.tone(), Some(1000));
    pit.write_port(SPEAKER_PORT, 0x01, nanoseconds(200));
    assert_eq!(
        (pit.tone(), pit.read_port(SPEAKER_PORT, nanoseconds(201)).unwrap() & 0x23),
        (None, 0x21)
    );
    assert_eq!((pit.read_port(0x44, 0), pit.write_port(0x44, 0, 0)), (None, false));
}

#[test]
fn a_saved_timer_goes_on_and_a_bad_one_is_refused() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 1193, 0);
    program(&mut pit, 2, 3, 100, 0);
    for byte in [0, 4] {
        pit.write_port(0x40, byte, nanoseconds(100));
    }
    let saved = pit.save(nanoseconds(200));
    let mut other = Pit::restore(&saved, nanoseconds(1_000_200)).unwrap();
    assert_eq!(other.next_event(), Some(nanoseconds(1_001_193)));
    assert!(other.advance(nanoseconds(1_001_193)) && pit.advance(nanoseconds(1193)));
    assert_eq!(count(&mut other, 0, 1_001_200), count(&mut pit, 0, 1200));
    let bad = |change: fn(&mut SavedPit)| {
        let mut saved = saved;
        change(&mut saved);
        Pit::restore(&saved, 0).unwrap_err().to_string()
    };
    assert_eq!(bad(|saved| saved.version = 9), "saved state of the 8254: version 9, expected 1");
    assert!(bad(|saved| saved.channels[0].gate = false).contains("gate"));
    assert!(bad(|saved| saved.channels[0].initial = Some(0)).contains("initial"));
    assert!(bad(|saved| saved.channels[0].next.as_mut().unwrap().0 = 1 << 20).contains("next"));
    assert!(bad(|saved| saved.channels[0].mode = Mode::OneShot).contains("next"));
    assert!(
        bad(|saved| saved.channels[0].run.as_mut().unwrap().count = 0x1_0001).contains("count")
    );
    assert!(
        bad(|saved| saved.channels[0].run.as_mut().unwrap().elapsed = u64::MAX).contains("elapsed")
    );
    assert!(bad(|saved| saved.not_before = u64::MAX).contains("not_before"));
}

#[path = "pit_model_test.rs"]
mod model;

proptest! {
    /// Any accesses at any time: nothing panics, and every state can be saved and restored.
    #[test]
    fn any_accesses_leave_a_state_that_restores(steps in prop::collection::vec((0_usize..8, any::<u8>(), any::<u64>()), 0..100)) {
        let mut pit = Pit::new();
        let mut now = 0_u64;
        for (place, value, time) in steps {
            now = now.saturating_add(time >> (time % 64)).min(1 << 62);
            match PIT_PORTS.get(place) {
                Some(port) => {
                    pit.write_port(*port, value, now);
                    pit.read_port(*port, now);
                }
                None => drop(pit.advance(now)),
            }
            prop_assert!(pit.next_event().is_none_or(|next| next < u64::MAX));
            let saved = pit.save(now);
            let restored = Pit::restore(&saved, now);
            prop_assert_eq!(restored.unwrap().save(now), saved);
        }
    }
}
