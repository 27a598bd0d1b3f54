use proptest::prelude::*;

use super::*;
use crate::time::{Deadline, Time};

#[path = "apic_timer_test.rs"]
mod timer_tests;

const NOW: Time = Time::from_nanoseconds(0);
const X2APIC: u64 = BASE_RESET | 1 << 10;

/// An APIC in x2APIC mode that software has enabled.
fn x2apic(id: u32) -> LocalApic {
    let mut apic = LocalApic::new(id, ApicConfig::of(id));
    apic.write_base(X2APIC).unwrap();
    write(&mut apic, 0x80f, 0x1ff);
    apic
}

/// An APIC in xAPIC mode that software has enabled.
fn xapic(id: u32) -> LocalApic {
    let mut apic = LocalApic::new(id, ApicConfig::of(id));
    store(&mut apic, 0xf0, 0x1ff);
    apic
}

fn write(apic: &mut LocalApic, msr: u32, value: u64) -> Option<Effect> {
    apic.write_msr(msr, value, NOW).unwrap()
}

fn read(apic: &LocalApic, msr: u32) -> u64 {
    apic.read_msr(msr, NOW).unwrap()
}

fn store(apic: &mut LocalApic, offset: u64, value: u32) -> Option<Effect> {
    apic.write_mmio(offset, 4, value, NOW)
}

fn load(apic: &mut LocalApic, offset: u64) -> u32 {
    apic.read_mmio(offset, 4, NOW)
}

fn request(apic: &mut LocalApic, vector: u8) -> bool {
    apic.accept(Delivery::Fixed(vector), false)
}

/// SDM vol. 3, 12.8.3 and 12.8.4: priority classes, IRR, ISR and PPR.
#[test]
fn interrupts_come_in_the_order_of_their_priority() {
    let mut apic = x2apic(0);
    assert!([0x31, 0x95, 0x42, 0x95].into_iter().all(|vector| request(&mut apic, vector)));
    assert_eq!((apic.pending(), apic.acknowledge()), (Some(0x95), Some(0x95)));
    // What is in service keeps its class and those below away.
    request(&mut apic, 0x9f);
    assert_eq!((apic.pending(), apic.acknowledge()), (None, None));
    assert_eq!(read(&apic, 0x80a), 0x90, "processor priority");
    assert_eq!(read(&apic, 0x814), 1 << 21, "in service, vectors 0x80 to 0x9f");
    assert_eq!(read(&apic, 0x824), 1 << 31, "requested");
    request(&mut apic, 0xa0);
    assert_eq!(apic.acknowledge(), Some(0xa0));
    for left in [None, Some(0x9f)] {
        assert_eq!(write(&mut apic, 0x80b, 0), None, "an edge is not broadcast");
        assert_eq!(apic.pending(), left);
    }
    for left in [0x9f, 0x42, 0x31] {
        assert_eq!(apic.acknowledge(), Some(left));
        write(&mut apic, 0x80b, 0);
    }
    assert_eq!((write(&mut apic, 0x80b, 0), apic.pending()), (None, None));
}

/// SDM vol. 3, 12.8.6: CR8 is the task priority's upper half.
#[test]
fn the_task_priority_and_cr8_are_the_same() {
    let mut apic = x2apic(0);
    request(&mut apic, 0x55);
    write(&mut apic, 0x808, 0x5c);
    assert_eq!((apic.pending(), apic.priority_class(), apic.processor_priority()), (None, 5, 0x5c));
    apic.set_priority_class(5);
    assert_eq!(read(&apic, 0x808), 0x5c, "the lower bits stay");
    apic.set_priority_class(4);
    assert_eq!((read(&apic, 0x808), apic.pending()), (0x40, Some(0x55)));
}

/// SDM vol. 3, 12.4.7.2: what a software-disabled APIC does and keeps.
#[test]
fn a_disabled_apic_takes_no_interrupts_but_events() {
    let mut apic = LocalApic::new(1, ApicConfig::of(1));
    apic.write_base(X2APIC).unwrap();
    assert!(!request(&mut apic, 0x55) && apic.pending().is_none());
    assert!(apic.accept(Delivery::Nmi, false) && apic.accept(Delivery::Startup(8), false));
    assert_eq!(apic.take_events(), Events { init: false, startup: Some(8), nmis: 1 });
    write(&mut apic, 0x832, 0x40);
    assert_eq!(read(&apic, 0x832), 0x1_0040, "entries stay masked");
    write(&mut apic, 0x80f, 0x1ff);
    write(&mut apic, 0x832, 0x40);
    request(&mut apic, 0x55);
    write(&mut apic, 0x80f, 0xff);
    assert_eq!((read(&apic, 0x832), apic.pending()), (0x1_0040, Some(0x55)));
}

/// SDM vol. 3, 12.5.3: errors show after a write of the register, and request their interrupt.
#[test]
fn errors_are_latched_and_interrupt() {
    let mut apic = xapic(0);
    store(&mut apic, 0x370, 0x51);
    assert!(!request(&mut apic, 15));
    assert_eq!((apic.acknowledge(), load(&mut apic, 0x280)), (Some(0x51), 0));
    assert_eq!(store(&mut apic, 0x300, 3), None, "an illegal vector is not sent");
    store(&mut apic, 0x280, 0);
    assert_eq!(load(&mut apic, 0x280), 0x60);
    // No such register.
    assert_eq!((load(&mut apic, 0x40), load(&mut apic, 0x3f0)), (0, 0));
    store(&mut apic, 0x3f0, 0x41);
    store(&mut apic, 0x20, 7 << 24);
    store(&mut apic, 0x280, 0);
    assert_eq!((load(&mut apic, 0x280), load(&mut apic, 0x20)), (0x80, 7 << 24));
    store(&mut apic, 0x280, 0);
    assert_eq!(load(&mut apic, 0x280), 0);
    // The error interrupt with an illegal vector does not chase itself.
    store(&mut apic, 0x370, 3);
    assert!(!request(&mut apic, 2));
}

/// SDM vol. 3, 12.8.5: the end of a level-triggered interrupt is broadcast, unless software
/// suppresses that.
#[test]
fn ends_of_levels_are_broadcast() {
    let config = ApicConfig { has_directed_eoi: true, ..ApicConfig::of(0) };
    let mut apic = LocalApic::new(0, config);
    assert_eq!(load(&mut apic, 0x30), 0x105_0014);
    store(&mut apic, 0xf0, 0x1ff);
    let end = |apic: &mut LocalApic| {
        assert!(apic.accept(Delivery::LowestPriority(0x61), true));
        assert_eq!((apic.acknowledge(), load(apic, 0x1b0)), (Some(0x61), 2), "trigger mode");
        store(apic, 0xb0, 0)
    };
    assert_eq!(end(&mut apic), Some(Effect::EndOfInterrupt(0x61)));
    store(&mut apic, 0xf0, 0x11ff);
    assert_eq!((end(&mut apic), load(&mut apic, 0xf0)), (None, 0x11ff));
    // The same vector as an edge.
    store(&mut apic, 0xf0, 0x1ff);
    request(&mut apic, 0x61);
    assert_eq!(
        (apic.acknowledge(), load(&mut apic, 0x1b0), store(&mut apic, 0xb0, 0)),
        (Some(0x61), 0, None)
    );
    assert_eq!(load(&mut xapic(0), 0x30), 0x5_0014);
}

/// SDM vol. 3, 12.6: commands become messages in both modes; delivery status reads as idle.
#[test]
fn commands_become_messages() {
    let fixed = |target, sender| {
        let message =
            Message { sender: Some(sender), ..Message::new(target, Delivery::Fixed(0x41)) };
        Some(Effect::Send(message))
    };
    let mut apic = x2apic(3);
    assert_eq!(write(&mut apic, 0x830, 5 << 32 | 0x5041), fixed(Target::Physical(5), 3));
    assert_eq!(read(&apic, 0x830), 5 << 32 | 0x4041);
    assert_eq!(write(&mut apic, 0x83f, 0x41), fixed(Target::Sender, 3));
    let mut apic = xapic(3);
    store(&mut apic, 0x310, 0x02ff_ffff);
    assert_eq!(store(&mut apic, 0x300, 0x5041), fixed(Target::Physical(2), 3));
    assert_eq!([0x300, 0x310].map(|at| load(&mut apic, at)), [0x4041, 2 << 24]);
}

/// SDM vol. 3, 12.6.2: physical, flat, cluster and x2APIC logical destinations, and shorthands.
#[test]
fn messages_address_by_physical_and_logical_ids() {
    let to = |target| Message { sender: Some(3), ..Message::new(target, Delivery::Nmi) };
    let count = |apics: &[LocalApic], target| {
        apics.iter().filter(|apic| apic.is_addressed(&to(target))).count()
    };
    let apics: Vec<_> = (0..20).map(x2apic).collect();
    for (target, addressed) in [
        (Target::Physical(5), 1),
        (Target::Physical(20), 0),
        (Target::All, 20),
        (Target::Others, 19),
        (Target::Sender, 1),
        (Target::Logical(0x1_0005), 2),
        (Target::Logical(0xffff), 16),
        (Target::Logical(0x2_ffff), 0),
    ] {
        assert_eq!(count(&apics, target), addressed, "x2APIC {target:?}");
    }
    assert_eq!(read(&apics[17], 0x80d), 1 << 16 | 2);
    // Flat model: one bit each.
    let mut apics: Vec<_> = (0..8).map(xapic).collect();
    for (bit, apic) in apics.iter_mut().enumerate() {
        store(apic, 0xd0, 1 << (24 + bit) | 0xff_ffff);
        assert_eq!((load(apic, 0xd0), load(apic, 0xe0)), (1 << (24 + bit), u32::MAX));
    }
    assert_eq!([0x81, 0, 0xff].map(|ids| count(&apics, Target::Logical(ids))), [2, 0, 8]);
    // Cluster model: four in each of two clusters.
    for (at, apic) in apics.iter_mut().enumerate() {
        store(apic, 0xe0, 0);
        store(apic, 0xd0, ((at / 4) << 28 | 1 << (24 + at % 4)) as u32);
        assert_eq!(load(apic, 0xe0), 0x0fff_ffff);
    }
    assert_eq!([0x13, 0x0f, 0x2f].map(|ids| count(&apics, Target::Logical(ids))), [2, 4, 0]);
    // A model that there is not.
    for apic in &mut apics {
        store(apic, 0xe0, 0x7000_0000);
    }
    assert_eq!(count(&apics, Target::Logical(0x0f)), 0);
    // The xAPIC ID can be changed, the initial one is for what xAPIC mode cannot express.
    let mut apic = xapic(300);
    assert_eq!(load(&mut apic, 0x20), 44 << 24);
    store(&mut apic, 0x20, 9 << 24);
    assert_eq!(
        [9, 44, 300].map(|id| apic.is_addressed(&to(Target::Physical(id)))),
        [true, false, true]
    );
}

/// SDM vol. 3, 12.4.7.3 and 12.12.5: INIT keeps the base and the ID; a start message after it
/// stays.
#[test]
fn init_resets_when_it_is_taken() {
    let mut apic = x2apic(2);
    request(&mut apic, 0x55);
    assert!(apic.accept(Delivery::Startup(1), false) && apic.accept(Delivery::Nmi, false));
    assert!(apic.accept(Delivery::Init, true) && apic.has_events());
    assert!(apic.accept(Delivery::Startup(9), false));
    assert_eq!(apic.events().startup, Some(9));
    assert_eq!(apic.take_events(), Events { init: true, startup: Some(9), nmis: 0 });
    assert!(!apic.has_events() && apic.pending().is_none());
    assert_eq!((apic.base(), apic.id(), read(&apic, 0x80f)), (X2APIC, 2, 0xff));
    // NMIs beyond the one that is latched are lost.
    (0..5).for_each(|_| assert!(apic.accept(Delivery::Nmi, false)));
    assert_eq!(apic.take_events().nmis, 2);
}

/// SDM vol. 3, figure 12-27: which modes follow which, and 12.4.4: reserved bits.
#[test]
fn modes_change_only_as_the_manual_allows() {
    let (off, xapic, x2apic, invalid) = (0xfee0_0000, BASE_RESET, X2APIC, 0xfee0_0400);
    for (from, to, is_allowed) in [
        (off, xapic, true),
        (off, x2apic, false),
        (xapic, x2apic, true),
        (xapic, off, true),
        (x2apic, off, true),
        (x2apic, xapic, false),
        (off, invalid, false),
        (xapic, invalid, false),
        (x2apic, invalid, false),
    ] {
        let mut apic = LocalApic::new(1, ApicConfig::of(1));
        apic.set_base(from).unwrap();
        assert_eq!(apic.write_base(to).is_ok(), is_allowed, "{from:#x} {to:#x}");
        assert_eq!(apic.base(), if is_allowed { to } else { from });
        assert_eq!(apic.set_base(to).is_ok(), to != invalid);
    }
    let mut apic =
        LocalApic::new(0, ApicConfig { has_x2apic: false, address_bits: 40, ..ApicConfig::of(0) });
    assert_eq!(apic.base(), 0xfee0_0900);
    for bad in [x2apic, xapic | 1, xapic | 1 << 9, xapic | 1 << 40, xapic | 1 << 63] {
        assert_eq!(apic.write_base(bad), Err(Refused), "{bad:#x}");
    }
    assert_eq!(apic.write_base(0xff_fee1_0800), Ok(()));
    assert_eq!(apic.mmio_base(), Some(0xff_fee1_0000));
}

/// SDM vol. 3, 12.4.3: a disabled APIC has neither registers nor messages, and has forgotten all
/// when it comes back.
#[test]
fn a_globally_disabled_apic_is_not_there() {
    let mut apic = xapic(0);
    request(&mut apic, 0x55);
    store(&mut apic, 0x20, 9 << 24);
    apic.write_base(0xfee0_0000).unwrap();
    assert_eq!(
        (load(&mut apic, 0x30), apic.read_mmio(0x30, 1, NOW), apic.mmio_base()),
        (u32::MAX, 0xff, None)
    );
    assert_eq!(store(&mut apic, 0x300, 0x4041), None);
    assert_eq!(
        (apic.read_msr(0x802, NOW), apic.write_msr(0x80b, 0, NOW)),
        (Err(Refused), Err(Refused))
    );
    assert!(
        !apic.is_addressed(&Message::new(Target::All, Delivery::Nmi)) && apic.pending().is_none()
    );
    // The pin is the processor's own.
    assert!(apic.set_pin(Pin::Lint0, true) && apic.has_external_interrupt());
    apic.write_base(BASE_RESET).unwrap();
    assert_eq!((load(&mut apic, 0x20), load(&mut apic, 0xf0)), (0, 0xff));
}

/// SDM vol. 3, tables 12-1 and 12-6: what is not there in a mode, and reserved values.
#[test]
fn registers_that_are_not_there_are_refused() {
    let mut apic = x2apic(17);
    for msr in [0x800, 0x809, 0x80b, 0x80c, 0x80e, 0x82f, 0x831, 0x83f, 0x8ff, 0x7ff] {
        assert_eq!(apic.read_msr(msr, NOW), Err(Refused), "{msr:#x}");
    }
    for (msr, value) in [
        (0x802, 0),
        (0x80b, 1),
        (0x80d, 0),
        (0x80e, 0),
        (0x810, 0),
        (0x828, 1),
        (0x82f, 0),
        (0x830, 1 << 13),
        (0x830, 1 << 16),
        (0x830, 1 << 20),
        (0x839, 1),
        (0x808, 1 << 32),
        (0x83f, 0x100),
        (0x8ff, 0),
    ] {
        assert_eq!(apic.write_msr(msr, value, NOW), Err(Refused), "{msr:#x} {value:#x}");
    }
    assert_eq!([0x802, 0x803, 0x80d].map(|msr| read(&apic, msr)), [17, 0x5_0014, 1 << 16 | 2]);
    // Memory belongs to xAPIC mode, and MSRs to x2APIC mode.
    assert_eq!((load(&mut apic, 0x20), xapic(0).read_msr(0x802, NOW)), (u32::MAX, Err(Refused)));
}

/// SDM vol. 3, 12.4.1.2: accesses are of 32 bits, aligned; parts can be read.
#[test]
fn memory_accesses_are_aligned_words() {
    let mut apic = xapic(5);
    assert_eq!(apic.read_mmio(0x23, 1, NOW), 5);
    assert_eq!((apic.read_mmio(0x22, 2, NOW), apic.read_mmio(0x22, 4, NOW)), (0x500, 0));
    assert_eq!((apic.read_mmio(0x30, 2, NOW), apic.read_mmio(0x31, 1, NOW)), (0x14, 0));
    assert_eq!((load(&mut apic, 0x400), load(&mut apic, 0xff0)), (u32::MAX, u32::MAX));
    for (offset, width) in [(0x80, 1), (0x80, 2), (0x84, 4), (0x80, 8)] {
        assert_eq!(apic.write_mmio(offset, width, 0x20, NOW), None);
    }
    assert_eq!((load(&mut apic, 0x80), load(&mut apic, 0x90)), (0, 0));
}

/// SDM vol. 3, 12.5.1: what can be written of each entry, and how LINT0 and LINT1 deliver.
#[test]
fn pins_deliver_as_their_entries_say() {
    let mut apic = xapic(0);
    let written = [0x320, 0x330, 0x340, 0x350, 0x360, 0x370].map(|at| {
        store(&mut apic, at, u32::MAX);
        load(&mut apic, at)
    });
    assert_eq!(written, [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff]);
    // After a reset the bootstrap processor's LINT0 takes the 8259 pair's interrupts.
    let mut apic = LocalApic::new(0, ApicConfig::of(0));
    assert_eq!((load(&mut apic, 0x350), load(&mut apic, 0x360)), (0x700, 0x1_0000));
    assert!(apic.set_pin(Pin::Lint0, true) && apic.has_external_interrupt());
    assert!(!apic.set_pin(Pin::Lint0, false) && !apic.has_external_interrupt());
    assert!(!LocalApic::new(1, ApicConfig::of(1)).set_pin(Pin::Lint0, true));
    // An NMI for each edge of LINT1.
    let mut apic = xapic(0);
    store(&mut apic, 0x360, 0x400);
    assert!(apic.set_pin(Pin::Lint1, true) && !apic.set_pin(Pin::Lint1, true));
    assert_eq!(apic.take_events().nmis, 1);
    // A level at LINT0: one interrupt until its end, and again.
    store(&mut apic, 0x350, 0x8042);
    assert!(apic.set_pin(Pin::Lint0, true));
    assert_eq!((apic.acknowledge(), load(&mut apic, 0x350)), (Some(0x42), 0xc042));
    assert_eq!(apic.pending(), None);
    store(&mut apic, 0xb0, 0);
    assert_eq!((apic.acknowledge(), apic.set_pin(Pin::Lint0, false)), (Some(0x42), false));
    store(&mut apic, 0xb0, 0);
    assert_eq!((apic.pending(), load(&mut apic, 0x350)), (None, 0x8042));
    // Masked while it was asserted, it comes when it is unmasked.
    store(&mut apic, 0x350, 0x1_8042);
    assert!(!apic.set_pin(Pin::Lint0, true));
    store(&mut apic, 0x350, 0x8042);
    assert_eq!(apic.pending(), Some(0x42));
}

/// SDM vol. 3, 12.5.1: sensors and counters, which mask themselves.
#[test]
fn local_sources_interrupt() {
    let mut apic = xapic(0);
    assert!(!apic.signal(LocalSource::Thermal));
    store(&mut apic, 0x330, 0x71);
    store(&mut apic, 0x340, 0x400);
    assert!(apic.signal(LocalSource::Thermal) && apic.signal(LocalSource::PerformanceCounter));
    assert_eq!(
        (apic.pending(), apic.take_events().nmis, load(&mut apic, 0x340)),
        (Some(0x71), 1, 0x1_0400)
    );
    assert!(!apic.signal(LocalSource::PerformanceCounter));
    assert!(!apic.takes_watchdog());
    store(&mut apic, 0x350, 0x400);
    assert!(apic.takes_watchdog());
}
