use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use crate::{Bus, Device, Error, Width};

fn index(address: u64) -> usize {
    usize::try_from(address).unwrap()
}

/// Remembers its accesses and answers reads with the offset.
#[derive(Default)]
struct Probe(Mutex<Vec<(u64, u8, Option<u64>)>>);

impl Device for Probe {
    fn read(&self, offset: u64, width: Width) -> u64 {
        self.0.lock().unwrap().push((offset, width.bytes(), None));
        offset | 0xaaaa_aaaa_aaaa_0000
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        self.0.lock().unwrap().push((offset, width.bytes(), Some(value)));
    }
}

fn width(bytes: u8) -> Width {
    Width::new(bytes).unwrap()
}

#[test]
fn widths() {
    assert_eq!(Width::new(0), None);
    assert_eq!(Width::new(9), None);
    assert_eq!(width(1).all_ones(), 0xff);
    assert_eq!(width(3).all_ones(), 0xff_ffff);
    assert_eq!(width(8).all_ones(), u64::MAX);
    assert_eq!(width(2).truncate(0x12_3456), 0x3456);
}

#[test]
fn an_access_goes_to_its_device_with_offset_and_cut_value() {
    let probe = Arc::new(Probe::default());
    let mut bus = Bus::new("port");
    bus.insert("probe", 0x100..=0x10f, probe.clone()).unwrap();
    assert_eq!(bus.read(0x104, width(2)), 0x0004);
    bus.write(0x10f, width(1), 0x1234);
    assert_eq!(*probe.0.lock().unwrap(), [(4, 2, None), (15, 1, Some(0x34))]);
}

#[test]
fn an_access_that_leaves_the_range_is_nobodys() {
    let probe = Arc::new(Probe::default());
    let mut bus = Bus::new("MMIO");
    bus.insert("probe", 0x100..=0x10f, probe.clone()).unwrap();
    bus.insert("top", u64::MAX..=u64::MAX, probe.clone()).unwrap();
    for (address, bytes) in [(0x10e, 4), (0xff, 2), (0x110, 1), (u64::MAX, 2)] {
        assert_eq!(bus.read(address, width(bytes)), width(bytes).all_ones(), "{address:#x}");
        bus.write(address, width(bytes), 0);
    }
    assert!(probe.0.lock().unwrap().is_empty());
    assert_eq!(bus.read(u64::MAX, width(1)), 0);
}

#[test]
fn overlapping_and_empty_ranges_are_refused() {
    let probe = Arc::new(Probe::default());
    let mut bus = Bus::new("port");
    bus.insert("one", 0x10..=0x1f, probe.clone()).unwrap();
    bus.insert("two", 0x30..=0x3f, probe.clone()).unwrap();
    for range in [0x1f..=0x20, 0x0..=0x10, 0x12..=0x13, 0x0..=0xff, 0x3f..=0x3f] {
        assert!(matches!(bus.insert("late", range, probe.clone()), Err(Error::Overlap { .. })));
    }
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = 5..=4;
    assert!(matches!(bus.insert("none", reversed, probe.clone()), Err(Error::Empty { .. })));
    bus.insert("between", 0x20..=0x2f, probe).unwrap();
    assert_eq!(
        format!("{bus:?}"),
        r#"{0x10..=0x1f: "one", 0x20..=0x2f: "between", 0x30..=0x3f: "two"}"#
    );
}

proptest! {
    /// The bus agrees with the plainest model there is: a table with one owner per address.
    #[test]
    fn agrees_with_a_table(
        ranges in prop::collection::vec((0_u64..200, 0_u64..40), 0..12),
        accesses in prop::collection::vec((0_u64..256, 1_u8..=8), 0..50),
    ) {
        let probe = Arc::new(Probe::default());
        let mut bus = Bus::new("port");
        let mut owner = vec![None; 300];
        for (number, (start, length)) in ranges.into_iter().enumerate() {
            let (from, to) = (index(start), index(start + length));
            let free = owner[from..=to].iter().all(Option::is_none);
            prop_assert_eq!(bus.insert("device", start..=start + length, probe.clone()).is_ok(), free);
            if free {
                owner[from..=to].fill(Some((number, start)));
            }
        }
        for (address, bytes) in accesses {
            let hit = &owner[index(address)..index(address) + usize::from(bytes)];
            let expected = match hit[0] {
                Some((_, start)) if hit.iter().all(|one| *one == hit[0]) => {
                    width(bytes).truncate((address - start) | 0xaaaa_aaaa_aaaa_0000)
                }
                _ => width(bytes).all_ones(),
            };
            prop_assert_eq!(bus.read(address, width(bytes)), expected);
        }
    }
}
