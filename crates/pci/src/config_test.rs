use proptest::prelude::*;

use super::*;

fn sample() -> ConfigSpace {
    let mut config = ConfigSpace::new(&Identity {
        vendor: 0x1af4,
        device: 0x1041,
        revision: 1,
        class: 0x02_00_00,
        subsystem_vendor: 0x1af4,
        subsystem: 0x40,
    });
    config.add_bar(0, Bar { size: 0x8000, prefetchable: true, is_64_bit: false }).unwrap();
    config.add_bar(2, Bar { size: 16, prefetchable: false, is_64_bit: false }).unwrap();
    config.add_bar(4, Bar { size: 0x1000, prefetchable: true, is_64_bit: true }).unwrap();
    config.set_interrupt(1, 11);
    config
}

#[test]
fn the_header_says_what_it_is() {
    let config = sample();
    assert_eq!(config.read(0, 4), 0x1041_1af4);
    assert_eq!(config.read(2, 2), 0x1041);
    assert_eq!(config.read(8, 4), 0x0200_0001);
    assert_eq!(config.read(0x0b, 1), 2);
    assert_eq!(config.read(0x0e, 1), 0, "type 0, one function");
    assert_eq!(config.read(0x2c, 4), 0x0040_1af4);
    assert_eq!(config.read(0x3c, 2), 0x010b);
}

#[test]
fn read_only_registers_stay_and_widths_touch_their_bytes_only() {
    let mut config = sample();
    let before = config.clone();
    for offset in [0, 2, 6, 8, 0x0e, 0x2c, 0x34, 0x3d] {
        config.write(offset, 1, 0xff);
    }
    assert_eq!(config, before);
    config.write(0x3c, 4, 0xffff_ffff);
    assert_eq!(config.read(0x3c, 4), 0x0000_01ff);
    config.write(0x3c, 1, 5);
    assert_eq!(config.read(0x3c, 4), 0x0000_0105);
    config.write(4, 4, 0xffff_ffff);
    assert_eq!(config.read(4, 4), 0x0000_0406);
    config.write(5, 1, 0);
    assert_eq!(config.read(4, 4), 0x0000_0006);
}

#[test]
fn a_base_address_is_sized_and_moved() {
    let mut config = sample();
    assert_eq!(config.bar_address(0), None, "nothing is decoded yet");
    config.place(0, 0xc000_0000);
    assert_eq!(config.bar_address(0), Some(0xc000_0000));
    assert_eq!(config.bar_address(1), None);
    config.write(0x10, 4, 0xffff_ffff);
    assert_eq!(config.read(0x10, 4), 0xffff_8008);
    config.write(0x10, 4, 0xd000_7fff);
    assert_eq!(config.read(0x10, 4), 0xd000_0008, "low bits cannot be set");
    assert_eq!(config.bar_address(0), Some(0xd000_0000));
    config.write(0x18, 4, 0xffff_ffff);
    assert_eq!(config.read(0x18, 4), 0xffff_fff0);
    config.write(0x14, 4, 0xffff_ffff);
    assert_eq!(config.read(0x14, 4), 0, "a base address that is not there reads zero");
    config.write(COMMAND, 2, 0);
    assert_eq!(config.bar_address(0), None);
}

#[test]
fn a_base_address_of_64_bits_is_sized_and_moved_in_halves() {
    let mut config = sample();
    config.place(4, 0x12_c000_0000);
    assert_eq!(config.bar_address(4), Some(0x12_c000_0000));
    assert_eq!((config.read(0x20, 4), config.read(0x24, 4)), (0xc000_000c, 0x12));
    config.write(0x20, 4, 0xffff_ffff);
    config.write(0x24, 4, 0xffff_ffff);
    assert_eq!((config.read(0x20, 4), config.read(0x24, 4)), (0xffff_f00c, 0xffff_ffff));
    assert_eq!(config.decode(0xffff_ffff_ffff_f000, 4), Some((4, 0)));
    assert_eq!(config.decode(u64::MAX, 2), None);
    config.write(0x20, 4, 0xd000_0000);
    config.write(0x24, 4, 1);
    assert_eq!(config.decode(0x1_d000_0ffc, 4), Some((4, 0xffc)));
    assert_eq!(config.decode(0xd000_0ffc, 4), None, "the upper half counts");
    let (saved, other) = (config.save(), sample());
    assert_eq!(other.restored(&saved).unwrap(), config);
}

#[test]
fn an_access_is_behind_a_base_address_with_all_its_bytes() {
    let mut config = sample();
    config.place(0, 0xc000_0000);
    assert_eq!(config.decode(0xc000_0000, 8), Some((0, 0)));
    assert_eq!(config.decode(0xc000_7ffc, 4), Some((0, 0x7ffc)));
    assert_eq!(config.decode(0xc000_7ffd, 4), None);
    assert_eq!(config.decode(0xbfff_ffff, 1), None);
    assert_eq!(config.decode(u64::MAX, 2), None);
}

#[test]
fn capabilities_are_linked_in_order() {
    let mut config = sample();
    assert_eq!(config.read(6, 2), 0);
    let first = config
        .add_capability(&Capability { id: 9, body: &[1, 2, 3], writable: &[0, 0xf0] })
        .unwrap();
    let second =
        config.add_capability(&Capability { id: 0x11, body: &[4; 10], writable: &[] }).unwrap();
    assert_eq!(config.read(6, 2), 0x10);
    assert_eq!(config.read(0x34, 1), u32::from(first));
    assert_eq!(config.read(first, 4), 0x0201_0009 | u32::from(second) << 8);
    assert_eq!(config.read(second, 4), 0x0404_0011, "the list ends here");
    assert_eq!((first % 4, second % 4), (0, 0));
    config.write(first, 4, 0xffff_ffff);
    config.write(first + 4, 4, 0xffff_ffff);
    assert_eq!(config.read(first, 4), 0xf201_0009 | u32::from(second) << 8);
    assert_eq!(config.read(first + 4, 4), 3);
    assert_eq!(
        config.add_capability(&Capability { id: 9, body: &[0; 200], writable: &[] }),
        Err(Error::NoRoom(202))
    );
}

#[test]
fn what_cannot_be_described_is_refused() {
    let mut config = sample();
    let bar = |size| Bar { size, prefetchable: false, is_64_bit: false };
    let wide = Bar { is_64_bit: true, ..bar(16) };
    for (index, bar) in [(0, bar(16)), (5, bar(16)), (6, bar(16)), (1, wide), (3, wide), (5, wide)]
    {
        assert_eq!(config.add_bar(index, bar), Err(Error::BarTaken(index)));
    }
    for size in [0, 8, 24] {
        assert_eq!(config.add_bar(3, bar(size)), Err(Error::BarSize(size)));
    }
}

proptest! {
    /// Whatever is written, only the bits that can change do, and accesses of all widths agree with
    /// each other.
    #[test]
    fn software_changes_only_what_it_may(
        writes in prop::collection::vec((any::<u8>(), prop::sample::select(vec![0_u8, 1, 2, 3, 4, 9]), any::<u32>()), 0..40),
    ) {
        let mut config = sample();
        config.add_capability(&Capability { id: 9, body: &[7; 6], writable: &[0, 0xff, 0x0f] }).unwrap();
        let before = config.clone();
        for (offset, width, value) in writes {
            config.write(offset, width, value);
        }
        for at in 0..=255_u8 {
            let fixed = !before.writable[usize::from(at)];
            prop_assert_eq!(config.read(at, 1) & u32::from(fixed), before.read(at, 1) & u32::from(fixed));
        }
        for at in 0..=252_u8 {
            let bytes = (0..4).fold(0, |word, i| word | config.read(at + i, 1) << (8 * u32::from(i)));
            prop_assert_eq!(config.read(at, 4), bytes);
        }
    }
}

#[test]
fn only_the_same_function_takes_saved_registers() {
    let mut config = sample();
    config.place(0, 0xc000_0000);
    config.write(0x3c, 1, 5);
    let saved = config.save();
    assert_eq!(sample().restored(&saved).unwrap(), config);
    let mut other = saved.clone();
    other.registers[2] ^= 1;
    assert!(sample().restored(&other).is_err());
    other.registers.truncate(255);
    assert!(sample().restored(&other).is_err());
    let mut smaller = sample();
    smaller.add_capability(&Capability { id: 9, body: &[0; 10], writable: &[] }).unwrap();
    assert!(smaller.restored(&saved).is_err());
}
