use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::{Bar, ConfigSpace, Identity};

/// A function whose memory is 16 bytes that read as offset and keep the last write.
struct Plain {
    config: Mutex<ConfigSpace>,
    written: Mutex<Option<(u64, u64)>>,
}

impl Plain {
    fn new(device: u16, address: u64) -> Arc<Self> {
        let mut config =
            ConfigSpace::new(&Identity { vendor: 0x1af4, device, ..Identity::default() });
        config.add_bar(0, Bar { size: 16, prefetchable: false, is_64_bit: false }).unwrap();
        config.place(0, address);
        config.set_interrupt(u8::from(device == 0x1042), 11);
        Arc::new(Self { config: Mutex::new(config), written: Mutex::new(None) })
    }
}

impl Function for Plain {
    fn read_config(&self, offset: u8, width: u8) -> u32 {
        self.config.lock().unwrap().read(offset, width)
    }

    fn write_config(&self, offset: u8, width: u8, value: u32) {
        self.config.lock().unwrap().write(offset, width, value);
    }

    fn read_memory(&self, address: u64, width: u8) -> Option<u64> {
        self.config.lock().unwrap().decode(address, width).map(|(_, offset)| offset)
    }

    fn write_memory(&self, address: u64, width: u8, value: u64) -> bool {
        let Some((_, offset)) = self.config.lock().unwrap().decode(address, width) else {
            return false;
        };
        *self.written.lock().unwrap() = Some((offset, value));
        true
    }
}

fn width(bytes: u8) -> Width {
    Width::new(bytes).unwrap()
}

fn address(bus: u32, device: u32, function: u32, register: u32) -> u64 {
    u64::from(ENABLE | bus << 16 | device << 11 | function << 8 | register)
}

fn two() -> (Bridge, Arc<Plain>) {
    let mut bridge = Bridge::new();
    assert!(bridge.is_empty());
    assert_eq!(bridge.add(Plain::new(0x1041, 0xc000_0000)), Some(0));
    let second = Plain::new(0x1042, 0xc000_0020);
    assert_eq!(bridge.add(second.clone()), Some(1));
    (bridge, second)
}

#[test]
fn lines_are_those_of_functions_with_a_pin() {
    assert_eq!(two().0.lines().collect::<Vec<_>>(), [11]);
}

#[test]
fn what_is_absent_reads_all_ones_in_every_width() {
    for ports in [Bridge::new().ports(), two().0.ports()] {
        for (bus, device, function) in
            [(0, 2, 0), (0, 31, 7), (255, 3, 1), (1, 0, 0), (0, 0, 1), (128, 1, 0)]
        {
            ports.write(0, width(4), address(bus, device, function, 0));
            assert_eq!(ports.read(0, width(4)), address(bus, device, function, 0));
            assert_eq!(ports.read(4, width(4)), 0xffff_ffff);
            assert_eq!(ports.read(6, width(2)), 0xffff);
            assert_eq!(ports.read(7, width(1)), 0xff);
            ports.write(4, width(4), 0);
        }
    }
}

#[test]
fn registers_are_read_in_every_width() {
    let ports = two().0.ports();
    ports.write(0, width(4), address(0, 1, 0, 0));
    assert_eq!(ports.read(4, width(4)), 0x1042_1af4);
    assert_eq!(ports.read(6, width(2)), 0x1042);
    assert_eq!(ports.read(5, width(1)), 0x1a);
    assert_eq!(ports.read(6, width(4)), 0xffff_ffff, "crosses the register");
    ports.write(0, width(4), address(0, 0, 0, 0x3c));
    ports.write(4, width(1), 0x0b);
    assert_eq!(ports.read(4, width(2)), 0x000b);
    ports.write(0, width(4), address(0, 1, 0, 0x3c));
    assert_eq!(ports.read(4, width(1)), 11, "the other function's");
}

#[test]
fn the_address_register_takes_dwords_only_and_needs_its_enable_bit() {
    let ports = two().0.ports();
    ports.write(0, width(4), 0xffff_ffff);
    assert_eq!(ports.read(0, width(4)), 0x80ff_fffc);
    ports.write(0, width(1), 0);
    ports.write(2, width(2), 0);
    assert_eq!(ports.read(0, width(4)), 0x80ff_fffc);
    assert_eq!(ports.read(0, width(2)), 0xffff);
    ports.write(0, width(4), 0);
    assert_eq!(ports.read(4, width(4)), 0xffff_ffff);
}

#[test]
fn memory_follows_the_base_address() {
    let (bridge, second) = two();
    let (ports, window) = (bridge.ports(), bridge.window());
    assert_eq!(window.read(0x28, width(4)), 8);
    window.write(0x2c, width(2), 7);
    assert_eq!(*second.written.lock().unwrap(), Some((12, 7)));
    assert_eq!(window.read(0x2e, width(4)), 0xffff_ffff, "runs over the end");
    assert_eq!(window.read(0x10, width(1)), 0xff, "between both");
    ports.write(0, width(4), address(0, 1, 0, 0x10));
    ports.write(4, width(4), 0xd000_0000);
    assert_eq!(window.read(0x28, width(4)), 0xffff_ffff);
    assert_eq!(window.read(0x1000_0008, width(4)), 8);
    ports.write(0, width(4), address(0, 1, 0, 4));
    ports.write(4, width(2), 0);
    assert_eq!(window.read(0x1000_0008, width(4)), 0xffff_ffff, "memory decoding is off");
    assert_eq!(window.read(u64::MAX, width(4)), 0xffff_ffff);
    window.write(u64::MAX, width(4), 0);
}

#[test]
fn there_are_as_many_slots_as_a_bus_has() {
    let mut bridge = Bridge::new();
    for slot in 0..32 {
        assert_eq!(bridge.add(Plain::new(1, 0)), Some(slot));
    }
    assert_eq!(bridge.add(Plain::new(1, 0)), None);
}

proptest! {
    /// No sequence of accesses makes a function appear where none is, or panics.
    #[test]
    fn only_what_is_there_answers(
        accesses in prop::collection::vec((0_u64..8, 1_u8..=8, any::<u32>(), any::<bool>()), 0..60),
    ) {
        let ports = two().0.ports();
        for (offset, bytes, value, is_write) in accesses {
            if is_write {
                ports.write(offset, width(bytes), u64::from(value));
                continue;
            }
            let answer = width(bytes).truncate(ports.read(offset, width(bytes)));
            let selected = ports.read(0, width(4));
            let absent = selected & u64::from(ENABLE | BUS_AND_FUNCTION) != u64::from(ENABLE)
                || selected >> 11 & 0x1f > 1;
            if offset >= 4 && absent {
                prop_assert_eq!(answer, width(bytes).all_ones());
            }
        }
    }
}

#[test]
fn a_restored_address_register_selects_the_same_register() {
    let mut bridge = Bridge::new();
    bridge.add(Plain::new(7, 0xc000_0000)).unwrap();
    let (before, after) = (bridge.ports(), bridge.ports());
    before.write(0, width(4), address(0, 0, 0, 0));
    after.restore(before.save()).unwrap();
    assert_eq!(after.read(4, width(4)), 0x0007_1af4);
    assert!(after.restore(ConfigPortsState { address: 1 }).is_err());
}
