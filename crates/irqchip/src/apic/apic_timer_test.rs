//! The timer (SDM vol. 3, 12.5.4), saved states, and properties.

use super::*;

fn at(nanoseconds: u64) -> Time {
    Time::from_nanoseconds(nanoseconds)
}

fn set(apic: &mut LocalApic, msr: u32, value: u64, now: u64) {
    assert_eq!(apic.write_msr(msr, value, at(now)), Ok(None));
}

fn count(apic: &LocalApic, now: u64) -> u64 {
    apic.read_msr(0x839, at(now)).unwrap()
}

fn finish(apic: &mut LocalApic) -> Option<u8> {
    let vector = apic.acknowledge();
    write(apic, 0x80b, 0);
    vector
}

/// SDM vol. 3, 12.5.4 and figure 12-10: a count of one shot, with each divider.
#[test]
fn one_shot_comes_once() {
    for (bits, divider) in [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (0xa, 128), (0xb, 1)]
    {
        let mut apic = x2apic(0);
        set(&mut apic, 0x83e, bits, 0);
        set(&mut apic, 0x832, 0x40, 0);
        set(&mut apic, 0x838, 1000, 500);
        let end = 500 + 1000 * divider;
        assert_eq!(apic.next_event(), Some(Deadline::Nanoseconds(end)));
        assert_eq!((count(&apic, 500), count(&apic, end - 300 * divider)), (1000, 300));
        apic.advance(at(end - 1));
        assert_eq!(apic.pending(), None);
        apic.advance(at(end));
        assert_eq!(
            (finish(&mut apic), apic.next_event(), count(&apic, end)),
            (Some(0x40), None, 0)
        );
        apic.advance(at(10 * end));
        assert_eq!(apic.pending(), None);
    }
}

/// Periods that passed unseen count as one interrupt, whatever their number; the period stays.
#[test]
fn periodic_comes_again_and_again() {
    let mut apic = x2apic(0);
    set(&mut apic, 0x83e, 0xb, 0);
    set(&mut apic, 0x832, 0x2_0041, 0);
    set(&mut apic, 0x838, 300_000, 10_000);
    apic.advance(at(310_000));
    assert_eq!(
        (finish(&mut apic), apic.next_event()),
        (Some(0x41), Some(Deadline::Nanoseconds(610_000)))
    );
    apic.advance(at(610_000 + 300_000 * 1_000_000 + 7));
    assert_eq!((finish(&mut apic), apic.pending()), (Some(0x41), None));
    assert_eq!(apic.next_event(), Some(Deadline::Nanoseconds(910_000 + 300_000 * 1_000_000)));
    // Masked, it counts without interrupts; a count of zero stops it.
    set(&mut apic, 0x832, 0x3_0041, 0);
    apic.advance(at(1 << 60));
    assert!(apic.pending().is_none() && apic.next_event().is_some());
    set(&mut apic, 0x838, 0, 1 << 60);
    assert_eq!(apic.next_event(), None);
    // The end of time.
    set(&mut apic, 0x838, u32::MAX.into(), u64::MAX - 5);
    apic.advance(at(u64::MAX));
    assert_eq!(apic.next_event(), Some(Deadline::Nanoseconds(u64::MAX)));
}

/// A periodic timer is not faster than [`MIN_PERIOD`], as in KVM.
#[test]
fn short_periods_are_made_longer() {
    let mut apic = x2apic(0);
    set(&mut apic, 0x83e, 0xb, 0);
    set(&mut apic, 0x832, 0x2_0041, 0);
    set(&mut apic, 0x838, 1, 1000);
    assert_eq!(apic.next_event(), Some(Deadline::Nanoseconds(1000 + MIN_PERIOD)));
    assert_eq!(count(&apic, 1000), 1, "no count above the initial one");
    apic.advance(at(1000 + MIN_PERIOD));
    assert_eq!(apic.next_event(), Some(Deadline::Nanoseconds(1000 + 2 * MIN_PERIOD)));
}

/// A timer that runs keeps its count when the divider or the mode changes between one-shot and
/// periodic.
#[test]
fn changes_of_divider_and_mode_keep_the_count() {
    let mut apic = x2apic(0);
    set(&mut apic, 0x83e, 0xb, 0);
    set(&mut apic, 0x832, 0x40, 0);
    set(&mut apic, 0x838, 1_000_000, 0);
    set(&mut apic, 0x83e, 1, 400_000);
    assert_eq!(
        (count(&apic, 400_000), apic.next_event()),
        (600_000, Some(Deadline::Nanoseconds(2_800_000)))
    );
    set(&mut apic, 0x832, 0x2_0040, 500_000);
    assert_eq!(
        (count(&apic, 800_000), apic.next_event()),
        (500_000, Some(Deadline::Nanoseconds(2_800_000)))
    );
    apic.advance(at(2_800_000));
    assert_eq!(apic.next_event(), Some(Deadline::Nanoseconds(6_800_000)));
    // The reserved mode does not run.
    set(&mut apic, 0x832, 0x6_0040, 2_900_000);
    set(&mut apic, 0x838, 1000, 2_900_000);
    assert_eq!((apic.next_event(), count(&apic, 2_900_000)), (None, 0));
}

/// SDM vol. 3, 12.5.4.1: TSC deadline mode.
#[test]
fn tsc_deadlines_expire_once() {
    let mut apic = x2apic(0);
    let tsc = |tsc| Time { nanoseconds: 7, tsc };
    apic.set_tsc_deadline(1000, tsc(0));
    assert_eq!((apic.tsc_deadline(), apic.next_event()), (0, None), "another mode");
    set(&mut apic, 0x838, 1 << 20, 0);
    set(&mut apic, 0x832, 0x4_0042, 0);
    assert_eq!(
        (apic.next_event(), read(&apic, 0x838)),
        (None, 0),
        "a change of mode stops the timer"
    );
    set(&mut apic, 0x838, 1 << 20, 0);
    assert_eq!(read(&apic, 0x838), 0, "counts are ignored");
    apic.set_tsc_deadline(1000, tsc(0));
    assert_eq!((apic.tsc_deadline(), apic.next_event()), (1000, Some(Deadline::Tsc(1000))));
    apic.advance(tsc(999));
    set(&mut apic, 0x832, 0x4_0043, 0);
    assert_eq!((apic.pending(), apic.tsc_deadline()), (None, 1000));
    apic.advance(tsc(1000));
    assert_eq!((finish(&mut apic), apic.tsc_deadline(), apic.next_event()), (Some(0x43), 0, None));
    // One that has passed expires at once; zero disarms.
    apic.set_tsc_deadline(5, tsc(6));
    assert_eq!((finish(&mut apic), apic.tsc_deadline()), (Some(0x43), 0));
    apic.set_tsc_deadline(50, tsc(6));
    apic.set_tsc_deadline(0, tsc(6));
    apic.advance(tsc(u64::MAX));
    assert_eq!((apic.next_event(), apic.pending()), (None, None));
    // Masked, it expires in silence.
    set(&mut apic, 0x832, 0x5_0043, 0);
    apic.set_tsc_deadline(5, tsc(6));
    assert_eq!((apic.pending(), apic.tsc_deadline()), (None, 0));
    // Without the mode in CPUID its bit is not there.
    let mut apic = LocalApic::new(0, ApicConfig { has_tsc_deadline: false, ..ApicConfig::of(0) });
    store(&mut apic, 0xf0, 0x1ff);
    store(&mut apic, 0x320, 0x4_0042);
    assert_eq!(load(&mut apic, 0x320), 0x42);
}

#[test]
fn a_saved_apic_goes_on_and_a_bad_one_is_refused() {
    let mut apic = x2apic(5);
    set(&mut apic, 0x832, 0x40, 0);
    set(&mut apic, 0x838, 1_000_000, 0);
    assert!(apic.accept(Delivery::Fixed(0x61), true) && apic.accept(Delivery::Nmi, false));
    apic.acknowledge();
    request(&mut apic, 0x71);
    let saved = apic.save(at(400));
    let config = ApicConfig::of(5);
    assert_eq!(LocalApic::restore(config, &saved, at(400)).unwrap(), apic);
    let moved = LocalApic::restore(config, &saved, at(5000)).unwrap();
    assert_eq!(moved.next_event(), Some(Deadline::Nanoseconds(2_000_000 + 5000 - 400)));
    let bad = |change: fn(&mut SavedLocalApic)| {
        let mut saved = saved;
        change(&mut saved);
        LocalApic::restore(config, &saved, NOW).unwrap_err().to_string()
    };
    assert_eq!(
        bad(|saved| saved.version = 3),
        "saved state of the local APIC: version 3, expected 1"
    );
    assert_eq!(
        bad(|saved| saved.base = 0x400),
        "saved state of the local APIC: base is impossible"
    );
    assert!(bad(|saved| saved.logical_destination = 1).contains("logical_destination"));
    assert!(bad(|saved| saved.destination_format = 0).contains("destination_format"));
    assert!(bad(|saved| saved.spurious = 1 << 12).contains("spurious"));
    assert!(bad(|saved| saved.requested[0] = 1).contains("requested"));
    assert!(bad(|saved| saved.in_service[0] = 0x8000).contains("in_service"));
    assert!(bad(|saved| saved.level[0] = 2).contains("level"));
    assert!(bad(|saved| saved.new_errors = 1).contains("errors"));
    assert!(bad(|saved| saved.entries[5] = 1 << 17).contains("entries"));
    assert!(bad(|saved| saved.spurious = 0).contains("entries"));
    assert!(bad(|saved| saved.divide = 4).contains("divide"));
    assert!(bad(|saved| saved.tsc_deadline = 1).contains("tsc_deadline"));
    assert!(bad(|saved| saved.initial_count = 0).contains("remaining"));
    assert!(bad(|saved| saved.nmis = 3).contains("nmis"));
}

#[cfg(feature = "serde")]
#[test]
fn a_saved_apic_is_plain_data() {
    let saved = x2apic(5).save(NOW);
    let text = serde_json::to_string(&saved).unwrap();
    assert_eq!(serde_json::from_str::<SavedLocalApic>(&text).unwrap(), saved);
}

proptest! {
    /// Requests, ends and priorities against sets of vectors.
    #[test]
    fn priorities_are_those_of_the_model(steps in prop::collection::vec((0_u8..4, 16_u8..=255), 0..200)) {
        let mut apic = x2apic(0);
        let (mut requested, mut serving, mut task) = (Vec::new(), Vec::new(), 0_u8);
        for (step, vector) in steps {
            match step {
                0 => {
                    request(&mut apic, vector);
                    requested.push(vector);
                }
                1 => {
                    task = vector;
                    write(&mut apic, 0x808, vector.into());
                }
                2 => {
                    write(&mut apic, 0x80b, 0);
                    let ended = serving.iter().max().copied();
                    serving.retain(|serving| Some(*serving) != ended);
                }
                _ => {
                    let priority = serving.iter().copied().chain([task]).map(|vector| vector >> 4).max();
                    let wanted = requested.iter().copied().max().filter(|vector| Some(*vector >> 4) > priority);
                    prop_assert_eq!(apic.acknowledge(), wanted);
                    requested.retain(|vector| Some(*vector) != wanted);
                    serving.extend(wanted);
                }
            }
        }
    }

    /// Any accesses in any mode: nothing panics, and every state can be saved and restored.
    #[test]
    fn any_accesses_leave_a_state_that_restores(
        steps in prop::collection::vec((0_u8..10, 0_u32..0x48, any::<u64>()), 0..150),
    ) {
        let mut apic = xapic(1);
        let mut time = NOW;
        for (step, number, value) in steps {
            time.nanoseconds = time.nanoseconds.saturating_add(value >> (value % 64));
            time.tsc = time.tsc.wrapping_add(value >> (value % 32));
            match step {
                0 => drop(apic.write_base(BASE_RESET & !(value & 0x800) | value & 0x400)),
                1 | 2 => drop(apic.write_msr(0x800 + number, value >> (value % 40), time)),
                3 | 4 => drop(apic.write_mmio(u64::from(number) << 4, 4, value as u32, time)),
                5 => apic.set_tsc_deadline(value, time),
                6 => drop(apic.accept(Delivery::Fixed(value as u8), value & 0x100 != 0)),
                7 => drop((apic.set_pin(Pin::Lint0, value & 1 != 0), apic.set_pin(Pin::Lint1, value & 2 != 0))),
                8 => drop((apic.take_events(), apic.acknowledge())),
                _ => drop((apic.read_mmio(value & 0xfff, 1 << (value >> 62), time), apic.read_msr(0x800 + number, time))),
            }
            apic.advance(time);
            prop_assert!(apic.next_event().is_none_or(|next| !next.has_passed(time)) || time.nanoseconds == u64::MAX);
            prop_assert_eq!(LocalApic::restore(ApicConfig::of(1), &apic.save(time), time).unwrap(), apic.clone());
        }
    }
}
