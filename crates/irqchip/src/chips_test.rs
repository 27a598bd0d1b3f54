use super::*;
use crate::Events;

const NOW: Time = Time::from_nanoseconds(0);
const NONE: [u32; 0] = [];
const FIRST: LineSource = LineSource::new(0).unwrap();
const SECOND: LineSource = LineSource::new(62).unwrap();

/// A machine with software-enabled local APICs in xAPIC mode, and an 8259 pair that is masked.
fn machine(cpus: u32) -> InterruptChips {
    set_up(&ChipsConfig::of(cpus))
}

fn set_up(config: &ChipsConfig) -> InterruptChips {
    let mut chips = InterruptChips::new(config);
    for vcpu in 0..config.cpus {
        store(&mut chips, vcpu, 0xf0, 0x1ff);
    }
    assert!(chips.write_port(0x21, 0xff, 0) && chips.write_port(0xa1, 0xff, 0));
    chips
}

/// A guest's write to its local APIC.
fn store(chips: &mut InterruptChips, vcpu: u32, offset: u64, value: u32) {
    let effect = chips.apic(vcpu).unwrap().write_mmio(offset, 4, value, NOW);
    effect.into_iter().for_each(|effect| chips.carry_out(effect));
}

/// A redirection entry of the I/O APIC.
fn route(chips: &mut InterruptChips, pin: u32, entry: u64) {
    for (half, value) in [(1, entry >> 32), (0, entry & 0xffff_ffff)] {
        chips.write_ioapic(0, 0x10 + 2 * pin + half);
        chips.write_ioapic(0x10, value as u32);
    }
}

/// The 8259 pair as Linux sets it up, with vectors from 0x30 and all but these lines masked.
fn set_up_pics(chips: &mut InterruptChips, open: u16) {
    let [first, second] = (!open).to_le_bytes();
    for (port, values) in [(0x20, [0x11, 0x30, 4, 1, first]), (0xa0, [0x11, 0x38, 2, 1, second])] {
        assert!(chips.write_port(port, values[0], 0));
        values[1..].iter().for_each(|value| assert!(chips.write_port(port + 1, *value, 0)));
    }
}

fn woken(chips: &mut InterruptChips) -> Vec<u32> {
    chips.take_woken().collect()
}

/// A line is a pin of the I/O APIC and, below 16, of the 8259 pair, whose interrupts the bootstrap
/// processor takes at LINT0.
#[test]
fn a_line_reaches_the_ioapic_and_the_pics() {
    let mut chips = machine(2);
    store(&mut chips, 0, 0x350, 0x700);
    set_up_pics(&mut chips, 1 << 4);
    route(&mut chips, 4, 0x0100_0000_0000_0044);
    assert_eq!(woken(&mut chips), NONE);
    chips.set_line(4, FIRST, true);
    assert_eq!(woken(&mut chips), [0, 1]);
    assert_eq!([0, 1].map(|vcpu| chips.has_interrupt(vcpu)), [true, true]);
    assert_eq!([0, 1].map(|vcpu| chips.acknowledge(vcpu)), [Some(0x34), Some(0x44)]);
    assert_eq!([0, 1, 2].map(|vcpu| chips.has_interrupt(vcpu)), [false; 3]);
    // Lines from 16 on are the I/O APIC's alone, and those from 24 on are none.
    route(&mut chips, 23, 0x55);
    chips.set_line(23, FIRST, true);
    chips.set_line(24, FIRST, true);
    assert_eq!(
        (chips.acknowledge(0), chips.acknowledge(2), woken(&mut chips)),
        (Some(0x55), None, vec![0])
    );
}

/// SDM vol. 3, 12.1 and 12.5.1: external interrupts go before those of the local APIC, at an
/// unmasked LINT0 alone.
#[test]
fn external_interrupts_come_first_and_only_to_lint0() {
    let mut chips = machine(2);
    set_up_pics(&mut chips, 2);
    assert!(chips.send_message(0xfee0_0000, 0x91));
    chips.set_line(1, FIRST, true);
    assert!(!chips.has_interrupt(1) && chips.has_interrupt(0));
    assert_eq!(chips.apic(0).unwrap().pending(), Some(0x91));
    // LINT0 is open since the reset.
    assert_eq!([0; 3].map(|vcpu| chips.acknowledge(vcpu)), [Some(0x31), Some(0x91), None]);
    chips.write_port(0x20, 0x20, 0);
    chips.set_line(1, FIRST, false);
    store(&mut chips, 0, 0x350, 0x1_0700);
    chips.set_line(1, FIRST, true);
    assert!(!chips.has_interrupt(0));
    store(&mut chips, 0, 0x350, 0x700);
    assert!(chips.has_interrupt(0));
}

/// A line is asserted while one of its devices asserts it.
#[test]
fn devices_share_a_line() {
    let mut chips = machine(1);
    route(&mut chips, 10, 0x8052);
    chips.set_line(10, FIRST, true);
    chips.set_line(10, SECOND, true);
    let end = |chips: &mut InterruptChips| {
        let vector = chips.acknowledge(0);
        store(chips, 0, 0xb0, 0);
        vector
    };
    assert_eq!([0, 0].map(|_| end(&mut chips)), [Some(0x52); 2], "it comes again at each end");
    chips.set_line(10, FIRST, false);
    assert_eq!(end(&mut chips), Some(0x52));
    chips.set_line(10, SECOND, false);
    assert_eq!(
        [0, 0].map(|_| end(&mut chips)),
        [Some(0x52), None],
        "the last one was requested already"
    );
    assert_eq!((LineSource::new(63), LineSource::new(255)), (None, None));
}

/// An end of interrupt is about the lines of level-triggered pins with its vector.
#[test]
fn ends_of_interrupts_name_their_lines() {
    let mut chips = machine(1);
    for (pin, entry) in [(5, 0x51), (9, 0x8052), (10, 0x8052), (11, 0x8053)] {
        route(&mut chips, pin, entry);
    }
    assert_eq!(
        [0x51, 0x52, 0x53, 0].map(|vector| chips.lines_with(vector)),
        [0, 3 << 9, 1 << 11, 0]
    );
    let mut chips = set_up(&ChipsConfig { routes: Routes::TimerOnPin2, ..ChipsConfig::of(1) });
    route(&mut chips, 2, 0x8052);
    assert_eq!(chips.lines_with(0x52), 1, "the timer's line is 0");
}

/// A write to the 8259 pair ends the interrupts that it takes out of service.
#[test]
fn writes_to_the_pair_name_the_lines_that_they_end() {
    let mut chips = machine(1);
    set_up_pics(&mut chips, 1 << 2 | 1 << 10);
    chips.set_line(10, FIRST, true);
    assert_eq!(chips.lines_ended_by(0xa0, 0x20), 0, "none is in service");
    assert_eq!(chips.acknowledge(0), Some(0x3a));
    let ended =
        [(0xa0, 0x20), (0xa0, 0x62), (0xa0, 0x61), (0x20, 0x20), (0xa0, 0x0b), (0xa1, 0x20)];
    let ended = ended.map(|(port, value)| chips.lines_ended_by(port, value));
    assert_eq!(ended, [1 << 10, 1 << 10, 0, 1 << 2, 0, 0]);
}

/// A level-triggered interrupt that no processor accepted is sent when one does.
#[test]
fn a_level_waits_for_a_processor_that_accepts_it() {
    let mut chips = machine(1);
    store(&mut chips, 0, 0xf0, 0xff);
    route(&mut chips, 9, 0x8052);
    chips.set_line(9, FIRST, true);
    assert!(!chips.has_interrupt(0));
    store(&mut chips, 0, 0xf0, 0x1ff);
    route(&mut chips, 9, 0x8052);
    assert_eq!(chips.acknowledge(0), Some(0x52));
}

/// Lowest priority: one of the enabled processors addressed, the same one for the same vector.
#[test]
fn lowest_priority_chooses_one_by_its_vector() {
    let mut chips = machine(4);
    store(&mut chips, 2, 0xf0, 0xff);
    for vcpu in 0..4 {
        store(&mut chips, vcpu, 0xd0, 1 << (24 + vcpu));
    }
    let mut chosen = Vec::new();
    for vector in 0x60..0x66 {
        assert!(chips.send_message(0xfee0_f00c, vector));
        chosen.extend(woken(&mut chips));
    }
    assert_eq!(chosen, [0, 1, 3, 0, 1, 3]);
    assert!(!chips.send_message(0xfee0_400c, 0x70), "the only one is disabled");
    assert!(!chips.send_message(0xfef0_000c, 0x70), "no message");
}

/// SDM vol. 3, 12.6: messages between processors, to one, all and the others; start messages.
#[test]
fn processors_send_messages_to_each_other() {
    let mut chips = machine(3);
    let send = |chips: &mut InterruptChips, high: u32, low: u32| {
        store(chips, 1, 0x310, high << 24);
        store(chips, 1, 0x300, low);
        woken(chips)
    };
    assert_eq!(send(&mut chips, 2, 0x4041), [2]);
    assert_eq!(send(&mut chips, 0xff, 0x4041), [0, 1, 2]);
    assert_eq!(send(&mut chips, 0, 0xc_4041), [0, 2]);
    assert_eq!(send(&mut chips, 0, 0x4_4041), [1]);
    assert_eq!(send(&mut chips, 7, 0x4041), NONE);
    assert_eq!(send(&mut chips, 2, 0xc500), [2]);
    assert_eq!(send(&mut chips, 2, 0x4608), [2]);
    let events = chips.apic(2).unwrap().take_events();
    assert_eq!(events, Events { init: true, startup: Some(8), nmis: 0 });
    assert_eq!([0, 1, 2].map(|vcpu| chips.acknowledge(vcpu)), [Some(0x41), Some(0x41), None]);
}

/// The timer interrupts by either way, and as a watchdog's NMI at LINT0.
#[test]
fn the_timer_interrupts() {
    for (routes, pin) in [(Routes::Identity, 0), (Routes::TimerOnPin2, 2)] {
        let mut chips = set_up(&ChipsConfig { routes, ..ChipsConfig::of(2) });
        set_up_pics(&mut chips, 1);
        route(&mut chips, pin, 0x0100_0000_0000_0050);
        store(&mut chips, 1, 0x350, 0x400);
        [0x34, 0x9b, 0x2e].into_iter().zip([0x43, 0x40, 0x40]).for_each(|(value, port)| {
            assert!(chips.write_port(port, value, 0));
        });
        let at = chips.next_event().unwrap();
        assert!((9_999_000..10_001_000).contains(&at), "100 Hz: {at}");
        chips.advance(Time::from_nanoseconds(at - 1));
        assert_eq!(woken(&mut chips), NONE);
        chips.advance(Time::from_nanoseconds(at));
        assert_eq!(woken(&mut chips), [0, 1]);
        assert_eq!(
            [0, 1].map(|vcpu| chips.acknowledge(vcpu)),
            [Some(0x30), Some(0x50)],
            "{routes:?}"
        );
        assert_eq!(chips.apic(1).unwrap().take_events().nmis, 1);
    }
    let mut chips = machine(1);
    store(&mut chips, 0, 0x320, 0x40);
    store(&mut chips, 0, 0x380, 500);
    chips.advance(Time::from_nanoseconds(999));
    assert_eq!(woken(&mut chips), NONE);
    chips.advance(Time::from_nanoseconds(1000));
    assert_eq!((woken(&mut chips), chips.acknowledge(0)), (vec![0], Some(0x40)));
}

/// With version 0x20 of the I/O APIC a guest may end interrupts there instead of by broadcasts.
#[test]
fn directed_ends_go_to_the_eoi_register() {
    let config = ChipsConfig { ioapic: IoApicVersion::WithEoiRegister, ..ChipsConfig::of(1) };
    let mut chips = set_up(&config);
    store(&mut chips, 0, 0xf0, 0x11ff);
    route(&mut chips, 9, 0x8052);
    chips.set_line(9, FIRST, true);
    assert_eq!(chips.acknowledge(0), Some(0x52));
    store(&mut chips, 0, 0xb0, 0);
    assert!(!chips.has_interrupt(0));
    chips.write_ioapic(0x40, 0x52);
    assert!(chips.has_interrupt(0));
}

#[test]
fn saved_chips_go_on_and_bad_ones_are_refused() {
    let config = ChipsConfig::of(2);
    let mut chips = machine(2);
    set_up_pics(&mut chips, 1 << 5);
    route(&mut chips, 9, 0x0100_0000_0000_8052);
    chips.set_line(9, FIRST, true);
    chips.set_line(5, FIRST, true);
    woken(&mut chips);
    let saved = chips.save(NOW);
    let mut other = InterruptChips::restore(&config, &saved, NOW).unwrap();
    assert_eq!(other, chips);
    assert_eq!([0, 1].map(|vcpu| other.acknowledge(vcpu)), [Some(0x35), Some(0x52)]);
    other.set_line(9, FIRST, false);
    let bad = |change: fn(&mut SavedChips)| {
        let mut saved = saved.clone();
        change(&mut saved);
        InterruptChips::restore(&config, &saved, NOW).unwrap_err().to_string()
    };
    assert_eq!(
        bad(|saved| saved.board.version = 7),
        "saved state of the board: version 7, expected 1"
    );
    assert!(bad(|saved| saved.apics.truncate(1)).contains("number of local APICs"));
    assert!(bad(|saved| saved.apics[1].id = 0).contains("id"));
    assert!(bad(|saved| saved.board.routes = Routes::TimerOnPin2).contains("routes"));
    assert!(
        bad(|saved| saved.board.ioapic.kind = IoApicVersion::WithEoiRegister).contains("version")
    );
    // LINT0 is what the 8259 pair says.
    let mut wrong = saved.clone();
    wrong.apics[0].pins[0] = false;
    assert_eq!(InterruptChips::restore(&config, &wrong, NOW).unwrap(), chips);
}

#[cfg(feature = "serde")]
#[test]
fn saved_chips_are_plain_data() {
    let saved = machine(2).save(NOW);
    let text = serde_json::to_string(&saved).unwrap();
    assert_eq!(serde_json::from_str::<SavedChips>(&text).unwrap(), saved);
}
