use super::*;
use crate::message::{Delivery, Target};

/// Writes a redirection entry, upper half first, as drivers do.
fn route(chip: &mut IoApic, pin: u8, entry: u64) -> Pins {
    let _ = chip.write(SELECT, u32::from(FIRST_ENTRY + 2 * pin + 1));
    let _ = chip.write(WINDOW, (entry >> 32) as u32);
    let _ = chip.write(SELECT, u32::from(FIRST_ENTRY + 2 * pin));
    chip.write(WINDOW, entry as u32)
}

fn read(chip: &mut IoApic, index: u8) -> u32 {
    let _ = chip.write(SELECT, index.into());
    chip.read(WINDOW, 4)
}

/// Sends what is due, all of it accepted.
fn deliver(chip: &mut IoApic, pins: Pins) -> Vec<(u8, Message)> {
    let mut sent = Vec::new();
    for pin in pins {
        if let Some(message) = chip.message(pin) {
            chip.accepted(pin);
            sent.push((pin, message));
        }
    }
    sent
}

/// 82093AA, 3.2.1 to 3.2.3: ID, version and arbitration ID; unknown registers read as ones.
#[test]
fn identification_registers_read_as_the_data_sheet_says() {
    let mut chip = IoApic::new(IoApicVersion::Original);
    assert_eq!(read(&mut chip, VERSION), 0x17_0011);
    assert_eq!(read(&mut IoApic::new(IoApicVersion::WithEoiRegister), VERSION), 0x17_0020);
    let _ = chip.write(SELECT, ID.into());
    let _ = chip.write(WINDOW, 0xffff_ffff);
    assert_eq!((read(&mut chip, ID), read(&mut chip, ARBITRATION_ID)), (0xf00_0000, 0xf00_0000));
    let _ = chip.write(SELECT, VERSION.into());
    let _ = chip.write(WINDOW, 0);
    assert_eq!(read(&mut chip, VERSION), 0x17_0011);
    assert_eq!((read(&mut chip, 5), read(&mut chip, 0x40)), (u32::MAX, u32::MAX));
    assert_eq!((chip.read(SELECT, 4), chip.read(0x20, 4)), (0x40, 0));
    assert_eq!((read(&mut chip, 0x10), read(&mut chip, 0x11)), (0x1_0000, 0));
    assert_eq!(
        (chip.read(WINDOW, 1), read(&mut chip, 0x10), chip.read(WINDOW, 2)),
        (0, 0x1_0000, 0)
    );
}

/// 82093AA, 3.2.4: an edge sends one message, and one on a masked pin is lost.
#[test]
fn an_edge_is_sent_once_and_lost_while_masked() {
    let mut chip = IoApic::new(IoApicVersion::Original);
    let lost = chip.set_pin(4, true);
    assert_eq!(deliver(&mut chip, lost), []);
    let due = route(&mut chip, 4, 0x0300_0000_0000_0041);
    assert_eq!(deliver(&mut chip, due), [], "the edge has passed");
    for _ in 0..2 {
        let _ = chip.set_pin(4, false);
        let due = chip.set_pin(4, true);
        let fixed = Message::new(Target::Physical(3), Delivery::Fixed(0x41));
        assert_eq!(deliver(&mut chip, due), [(4, fixed)]);
        let due = chip.set_pin(4, true);
        assert_eq!(deliver(&mut chip, due), []);
    }
    assert_eq!(read(&mut chip, 0x18) & REMOTE_IRR as u32, 0);
}

/// 82093AA, 3.2.4, remote IRR: a level is sent once until its end, and again if it is still
/// asserted.
#[test]
fn a_level_waits_for_its_end_and_for_its_unmasking() {
    let mut chip = IoApic::new(IoApicVersion::Original);
    let _ = route(&mut chip, 10, 0x0100_0000_0001_8852);
    let due = chip.set_pin(10, true);
    assert_eq!(deliver(&mut chip, due), []);
    let due = route(&mut chip, 10, 0x0100_0000_0000_a852);
    let message =
        Message { is_level: true, ..Message::new(Target::Logical(1), Delivery::Fixed(0x52)) };
    assert_eq!(deliver(&mut chip, due), [(10, message)]);
    assert_eq!(read(&mut chip, 0x10 + 20), 0xe852);
    // Read-only bits stay, and nothing is sent twice.
    let due = route(&mut chip, 10, 0x0100_0000_0000_a852);
    assert_eq!(deliver(&mut chip, due), []);
    assert_eq!(read(&mut chip, 0x10 + 20), 0xe852);
    let due = chip.end_of_interrupt(0x53);
    assert_eq!(deliver(&mut chip, due), []);
    let due = chip.end_of_interrupt(0x52);
    assert_eq!(deliver(&mut chip, due), [(10, message)]);
    let _ = chip.set_pin(10, false);
    let due = chip.end_of_interrupt(0x52);
    assert_eq!(deliver(&mut chip, due), []);
    assert_eq!(read(&mut chip, 0x10 + 20), 0xa852);
}

/// A level that no local APIC accepted is sent again at the next occasion.
#[test]
fn a_level_that_is_not_accepted_stays_due() {
    let mut chip = IoApic::new(IoApicVersion::Original);
    let _ = route(&mut chip, 0, 0x8052);
    assert_eq!(chip.set_pin(0, true).next(), Some(0));
    assert!(chip.message(0).is_some() && chip.message(0).is_some());
    chip.accepted(0);
    assert_eq!(chip.message(0), None);
}

/// Guests without an EOI register end an interrupt by making its pin edge-triggered for a moment.
#[test]
fn an_edge_triggered_entry_has_no_remote_irr() {
    let mut chip = IoApic::new(IoApicVersion::Original);
    let _ = route(&mut chip, 7, 0x8060);
    let due = chip.set_pin(7, true);
    assert_eq!(deliver(&mut chip, due).len(), 1);
    let due = route(&mut chip, 7, 0x1_0060);
    assert_eq!(deliver(&mut chip, due), []);
    let due = route(&mut chip, 7, 0x8060);
    assert_eq!(deliver(&mut chip, due).len(), 1);
}

/// The EOI register of version 0x20, which version 0x11 has not.
#[test]
fn the_eoi_register_ends_an_interrupt_in_version_0x20() {
    for (version, again) in [(IoApicVersion::Original, 0), (IoApicVersion::WithEoiRegister, 1)] {
        let mut chip = IoApic::new(version);
        let _ = route(&mut chip, 9, 0x8060);
        let due = chip.set_pin(9, true);
        assert_eq!(deliver(&mut chip, due).len(), 1);
        let due = chip.write(END_OF_INTERRUPT, 0x60);
        assert_eq!(deliver(&mut chip, due).len(), again, "{version:?}");
    }
}

/// 82093AA, 3.2.4, delivery mode: what is not for a processor here is not sent.
#[test]
fn delivery_modes_are_sent_or_not() {
    let mut chip = IoApic::new(IoApicVersion::Original);
    let mut sent = |mode: u64| {
        let _ = route(&mut chip, 3, mode << 8 | 0x71);
        let _ = chip.set_pin(3, false);
        let due = chip.set_pin(3, true);
        deliver(&mut chip, due).first().map(|(_, message)| message.delivery)
    };
    let expected = [
        Some(Delivery::Fixed(0x71)),
        Some(Delivery::LowestPriority(0x71)),
        None,
        None,
        Some(Delivery::Nmi),
        Some(Delivery::Init),
        None,
        None,
    ];
    for (mode, delivery) in (0..).zip(expected) {
        assert_eq!(sent(mode), delivery, "mode {mode}");
    }
    let _ = route(&mut chip, 3, 0xff00_0000_0000_0071);
    assert_eq!(chip.message(3).map(|message| message.target), Some(Target::All));
}

#[test]
fn a_saved_ioapic_goes_on_and_a_bad_one_is_refused() {
    let mut chip = IoApic::new(IoApicVersion::WithEoiRegister);
    let _ = route(&mut chip, 9, 0x0500_0000_0000_8060);
    let due = chip.set_pin(9, true);
    deliver(&mut chip, due);
    let saved = chip.save();
    assert_eq!(IoApic::restore(&saved).unwrap(), chip);
    let bad = |change: fn(&mut SavedIoApic)| {
        let mut saved = saved;
        change(&mut saved);
        IoApic::restore(&saved).unwrap_err().to_string()
    };
    assert_eq!(
        bad(|saved| saved.version = 2),
        "saved state of the I/O APIC: version 2, expected 1"
    );
    assert_eq!(bad(|saved| saved.id = 16), "saved state of the I/O APIC: id is impossible");
    assert_eq!(
        bad(|saved| saved.entries[3] = 1 << 20),
        "saved state of the I/O APIC: entries is impossible"
    );
    assert!(bad(|saved| saved.entries[3] = REMOTE_IRR).contains("entries"));
    assert!(bad(|saved| saved.asserted = 1 << 24).contains("asserted"));
}
