//! Any accesses of all interrupt chips of a machine, in both forms. Also what the fuzz target does.

#![allow(clippy::cast_possible_truncation, reason = "any bits will do")]

use nerite_irqchip::{
    ChipsConfig, Effect, IOAPIC_PINS, InterruptChips, IoApicVersion, LineSource, LocalApic,
    PIC_PORTS, PIT_PORTS, Pin, SharedChips, Time, Wake,
};

/// One access: its kind, a place and a value.
pub(crate) type Step = (u8, u16, u64);

const CPUS: u32 = 3;
const NOW: Time = Time::from_nanoseconds(0);

struct Sleepless;

impl Wake for Sleepless {
    fn wake(&self, _: u32) {}
}

/// A port of the chips.
fn port(place: u16) -> u16 {
    let all = [PIC_PORTS.as_slice(), PIT_PORTS.as_slice()].concat();
    all[usize::from(place) % all.len()]
}

fn source(value: u64) -> LineSource {
    LineSource::new((value >> 8 & 7) as u8).unwrap()
}

/// Register offsets that exist, most of the time.
fn offset(place: u16) -> u64 {
    (u64::from(place) % 0x44) << 4
}

/// An access of a local APIC, with its consequence.
fn access(apic: &mut LocalApic, kind: u8, place: u16, value: u64, time: Time) -> Option<Effect> {
    match kind {
        0 | 1 => apic.write_mmio(offset(place), 4, value as u32, time),
        2 => apic
            .write_msr(0x800 + u32::from(place % 0x44), value >> (place >> 10), time)
            .ok()
            .flatten(),
        3 => {
            let _ = apic.write_base(0xfee0_0000 | value & 0xc00);
            None
        }
        4 => {
            apic.set_tsc_deadline(value, time);
            None
        }
        5 => {
            apic.take_events();
            apic.set_priority_class(value as u8);
            None
        }
        6 => {
            apic.set_pin(Pin::Lint1, value & 1 != 0);
            None
        }
        _ => {
            apic.read_mmio(offset(place) | value & 0xf, 4, time);
            None
        }
    }
}

fn step(chips: &mut InterruptChips, (kind, place, value): Step, time: Time) {
    let (vcpu, gsi) = (value as u32 % (CPUS + 1), (place % (u16::from(IOAPIC_PINS) + 2)) as u8);
    match kind % 16 {
        kind @ 0..=7 => {
            let effect =
                chips.apic(vcpu).and_then(|apic| access(apic, kind, place, value >> 8, time));
            effect.into_iter().for_each(|effect| chips.carry_out(effect));
        }
        8 => drop(chips.acknowledge(vcpu)),
        9 => chips.set_line(gsi, source(value), value & 1 != 0),
        10 => drop(chips.send_message(0xfee0_0000 | u64::from(place) << 4, value as u32)),
        11 => chips.advance(time),
        12 => drop(chips.read_port(port(place), time.nanoseconds)),
        13 => drop(chips.write_port(port(place), value as u8, time.nanoseconds)),
        14 => chips.write_ioapic(0, u32::from(place) % 0x42),
        _ => chips.write_ioapic(0x10, value as u32),
    }
}

fn shared_step(chips: &SharedChips<Sleepless>, (kind, place, value): Step, time: Time) {
    let (vcpu, gsi) = (value as u32 % (CPUS + 1), (place % (u16::from(IOAPIC_PINS) + 2)) as u8);
    match kind % 16 {
        kind @ 0..=7 => {
            let effect =
                chips.with_apic(vcpu, |apic| access(apic, kind, place, value >> 8, time)).flatten();
            effect.into_iter().for_each(|effect| chips.carry_out(effect));
        }
        8 => drop(chips.acknowledge(vcpu)),
        9 => chips.set_line(gsi, source(value), value & 1 != 0),
        10 => drop(chips.send_message(0xfee0_0000 | u64::from(place) << 4, value as u32)),
        11 => {
            chips.advance_board(time.nanoseconds);
            (0..CPUS).for_each(|vcpu| chips.with_apic(vcpu, |apic| apic.advance(time)).unwrap());
        }
        12 => drop(chips.read_port(port(place), time.nanoseconds)),
        13 => drop(chips.write_port(port(place), value as u8, time.nanoseconds)),
        14 => chips.write_ioapic(0, u32::from(place) % 0x42),
        _ => chips.write_ioapic(0x10, value as u32),
    }
}

/// Makes the accesses of an input: nothing panics, both forms do the same, and every state can be
/// saved and restored.
pub(crate) fn run(version: IoApicVersion, steps: impl IntoIterator<Item = Step>) {
    let config = ChipsConfig { ioapic: version, ..ChipsConfig::of(CPUS) };
    let mut chips = InterruptChips::new(&config);
    let shared = SharedChips::new(&config, Sleepless);
    for vcpu in 0..CPUS {
        chips.apic(vcpu).unwrap().write_mmio(0xf0, 4, 0x1ff, NOW);
        shared.with_apic(vcpu, |apic| apic.write_mmio(0xf0, 4, 0x1ff, NOW));
    }
    let mut time = NOW;
    for (kind, place, value) in steps {
        time.nanoseconds = time.nanoseconds.saturating_add(value >> (16 + value % 48));
        time.tsc = time.tsc.wrapping_add(value >> (value % 32));
        step(&mut chips, (kind, place, value), time);
        shared_step(&shared, (kind, place, value), time);
        let saved = chips.save(time);
        assert_eq!(shared.save(time), saved);
        let restored = InterruptChips::restore(&config, &saved, time);
        assert_eq!(restored.unwrap().save(time), saved);
        for vcpu in 0..CPUS {
            assert_eq!(chips.has_interrupt(vcpu), shared.has_interrupt(vcpu));
        }
    }
    // A level-triggered line that stays high interrupts again at once where the PIC ends
    // interrupts by itself. The first three writes may be the rest of an initialisation.
    for port in [0x21, 0xa1] {
        for _ in 0..4 {
            let _ = chips.write_port(port, 0xff, time.nanoseconds);
        }
    }
    // Whatever has been done, each processor's other interrupts come to an end.
    for vcpu in 0..CPUS {
        let taken = (0..1000).take_while(|_| chips.acknowledge(vcpu).is_some()).count();
        assert!(taken < 300, "{taken} interrupts");
    }
}
