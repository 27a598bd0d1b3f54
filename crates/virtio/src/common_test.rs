use nerite_memory::{Backing, Region};
use proptest::prelude::*;

use super::*;
use crate::QueueState;

const FEATURES: u64 = 0x1_0000_0021 | feature::INDIRECT_DESC;
const AGREED: u8 = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;

fn common() -> Common {
    Common::new(FEATURES, &[256, 64], 3)
}

fn ram() -> GuestRam {
    GuestRam::new(&[Region { start: 0x10_0000, size: 0x10_0000 }], &Backing::default()).unwrap()
}

fn read(common: &Common, offset: u64, width: u8) -> u64 {
    common.read(offset, width, 7, 0)
}

/// Goes to the point where queues are set up.
fn agreed() -> Common {
    let mut common = common();
    common.write(DEVICE_STATUS, 1, 1);
    common.write(DEVICE_STATUS, 1, 3);
    common.write(DRIVER_FEATURE_SELECT, 4, 1);
    common.write(DRIVER_FEATURE, 4, 1);
    let action = common.write(DEVICE_STATUS, 1, AGREED.into());
    assert_eq!(action, Action::CheckFeatures { features: feature::VERSION_1, then_start: false });
    common.features_ok();
    common
}

fn set_queue(common: &mut Common, index: u64, size: u64, addresses: [u64; 3]) {
    common.write(QUEUE_SELECT, 2, index);
    common.write(QUEUE_SIZE, 2, size);
    for (register, address) in [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(addresses) {
        common.write(register, 4, address & 0xffff_ffff);
        common.write(register + 4, 4, address >> 32);
    }
    common.write(QUEUE_ENABLE, 2, 1);
}

const GOOD: [u64; 3] = [0x10_0000, 0x10_1000, 0x10_2000];

#[test]
fn registers_of_features_that_are_not_offered_read_zero() {
    let mut common = agreed();
    let registers = [QUEUE_NOTIF_CONFIG_DATA, QUEUE_RESET, ADMIN_QUEUE_INDEX, ADMIN_QUEUE_NUM];
    for (at, register) in (56..u64::from(LENGTH)).step_by(2).zip(registers) {
        assert_eq!(at, register);
        let before = common.clone();
        assert_eq!(common.write(register, 2, 1), Action::None);
        assert_eq!((read(&common, register, 2), &common), (0, &before));
        assert_eq!(read(&common, register, 1), u64::MAX);
    }
    assert_eq!(read(&common, LENGTH.into(), 2), u64::MAX);
    assert_eq!(read(&common, QUEUE_NOTIF_CONFIG_DATA, 4), u64::MAX);
}

#[test]
fn features_come_in_words_and_offered_is_not_accepted() {
    let mut common = common();
    for (select, expected) in
        [(0, FEATURES & 0xffff_ffff), (1, 1), (2, 0), (3, 0), (0xffff_ffff, 0)]
    {
        common.write(DEVICE_FEATURE_SELECT, 4, select);
        assert_eq!(read(&common, DEVICE_FEATURE, 4), expected);
        common.write(DRIVER_FEATURE_SELECT, 4, select);
        assert_eq!(read(&common, DRIVER_FEATURE, 4), 0);
    }
    common.write(DRIVER_FEATURE_SELECT, 4, 0);
    common.write(DRIVER_FEATURE, 4, 0x20);
    assert_eq!(read(&common, DRIVER_FEATURE, 4), 0x20);
    common.write(DEVICE_FEATURE, 4, 0);
    common.write(DEVICE_FEATURE_SELECT, 4, 0);
    assert_eq!(read(&common, DEVICE_FEATURE, 4), FEATURES & 0xffff_ffff, "read-only");
}

#[test]
fn the_handshake_goes_in_order() {
    let ram = ram();
    let mut common = common();
    // Features and readiness before the device was acknowledged, or without VERSION_1.
    for early in [status::FEATURES_OK, status::DRIVER_OK, AGREED, AGREED | status::DRIVER_OK] {
        assert_eq!(common.write(DEVICE_STATUS, 1, early.into()), Action::None);
        assert_eq!(read(&common, DEVICE_STATUS, 1) & !3, 0);
    }
    let mut common = agreed();
    assert_eq!(read(&common, DEVICE_STATUS, 1), u64::from(AGREED));
    assert_eq!(common.write(DEVICE_STATUS, 1, (AGREED | status::DRIVER_OK).into()), Action::Start);
    assert_eq!(common.freeze(&ram), Ok(vec![None, None]));
    assert_eq!(read(&common, DEVICE_STATUS, 1), u64::from(AGREED | status::DRIVER_OK));
    // Bits are not cleared one by one, and nothing starts twice.
    assert_eq!(common.write(DEVICE_STATUS, 1, (AGREED | status::DRIVER_OK).into()), Action::None);
    assert_eq!(common.write(DEVICE_STATUS, 1, 1), Action::None);
    assert_eq!(read(&common, DEVICE_STATUS, 1), u64::from(AGREED | status::DRIVER_OK));
    assert_eq!(common.write(DEVICE_STATUS, 1, 0), Action::Reset);
    common.reset();
    assert_eq!(common, self::common());
}

#[test]
fn features_that_are_not_offered_are_not_agreed_on() {
    for (select, bits) in [(0, 2), (1, 3), (2, 1), (77, 0x8000_0000)] {
        let mut common = common();
        common.write(DEVICE_STATUS, 1, 3);
        common.write(DRIVER_FEATURE_SELECT, 4, 1);
        common.write(DRIVER_FEATURE, 4, 1);
        common.write(DRIVER_FEATURE_SELECT, 4, select);
        common.write(DRIVER_FEATURE, 4, bits);
        assert_eq!(
            common.write(DEVICE_STATUS, 1, AGREED.into()),
            Action::None,
            "{select} {bits:#x}"
        );
        assert_eq!(read(&common, DEVICE_STATUS, 1), 3);
    }
}

#[test]
fn features_stay_once_they_are_agreed_on() {
    let mut common = agreed();
    for select in [0, 1, 2] {
        common.write(DRIVER_FEATURE_SELECT, 4, select);
        common.write(DRIVER_FEATURE, 4, 0xffff_ffff);
    }
    assert_eq!(common.features(), feature::VERSION_1);
    assert_eq!(common.write(DEVICE_STATUS, 1, (AGREED | status::DRIVER_OK).into()), Action::Start);
}

#[test]
fn a_driver_that_gave_up_starts_nothing() {
    let mut common = agreed();
    common.write(DEVICE_STATUS, 1, status::FAILED.into());
    assert_eq!(common.write(DEVICE_STATUS, 1, 0x8f), Action::None);
    assert_eq!(read(&common, DEVICE_STATUS, 1), u64::from(AGREED | status::FAILED));
}

#[test]
fn queues_are_frozen_when_the_driver_is_ready() {
    let ram = ram();
    let mut common = agreed();
    set_queue(&mut common, 1, 32, GOOD);
    let queues = common.freeze(&ram).unwrap();
    let [descriptors, available, used] = GOOD;
    assert_eq!(
        queues,
        [
            None,
            Some(QueueConfig {
                index: 1,
                size: 32,
                max_size: 64,
                descriptors,
                available,
                used,
                progress: QueueState::default()
            })
        ]
    );
    let before = common.clone();
    for index in [1, 0] {
        set_queue(&mut common, index, 8, [0x11_0000; 3]);
        assert_eq!(common.write(QUEUE_MSIX_VECTOR, 2, 1), Action::None);
    }
    common.write(QUEUE_SELECT, 2, before.queue_select.into());
    assert_eq!(common, before);
    assert!(common.is_live(1));
    assert!(!common.is_live(0));
    assert!(!common.is_live(2));
}

#[test]
fn an_enabled_queue_no_longer_changes() {
    let mut common = agreed();
    set_queue(&mut common, 0, 32, GOOD);
    set_queue(&mut common, 0, 8, [0x11_0000; 3]);
    common.write(QUEUE_ENABLE, 2, 0);
    assert_eq!(read(&common, QUEUE_SIZE, 2), 32);
    assert_eq!(read(&common, QUEUE_DESC, 8), GOOD[0]);
    assert_eq!(read(&common, QUEUE_ENABLE, 2), 1);
    // But for its vector: Hermit's driver chooses that last.
    assert_eq!(common.write(QUEUE_MSIX_VECTOR, 2, 1), Action::QueueVector { index: 0, vector: 1 });
    assert_eq!(read(&common, QUEUE_MSIX_VECTOR, 2), 1);
}

#[test]
fn queues_that_cannot_be_used_are_named() {
    let ram = ram();
    let freeze = |size, addresses| {
        let mut common = agreed();
        set_queue(&mut common, 1, size, addresses);
        let frozen = common.freeze(&ram);
        assert!(common.is_frozen());
        frozen
    };
    for size in [0, 3, 128, 65535] {
        assert!(
            matches!(freeze(size, GOOD), Err(QueueFault::Size { index: 1, max: 64, .. })),
            "{size}"
        );
    }
    let faults = [
        ([0x10_0008, GOOD[1], GOOD[2]], true),
        ([GOOD[0], 0x10_1001, GOOD[2]], true),
        ([GOOD[0], GOOD[1], 0x10_2002], true),
        ([0, GOOD[1], GOOD[2]], false),
        ([0x1f_ff00, GOOD[1], GOOD[2]], false),
        ([GOOD[0], 0x20_0000 - 2, GOOD[2]], false),
        ([GOOD[0], GOOD[1], 0xffff_ffff_ffff_fffc], false),
    ];
    for (addresses, is_alignment) in faults {
        let fault = freeze(64, addresses).unwrap_err();
        assert_eq!(matches!(fault, QueueFault::Alignment { .. }), is_alignment, "{fault}");
        assert_eq!(matches!(fault, QueueFault::OutsideRam { .. }), !is_alignment, "{fault}");
    }
    // Rings that overlap hurt only the guest.
    assert!(freeze(64, [GOOD[0]; 3]).is_ok());
}

#[test]
fn a_queue_that_is_not_there_has_no_size_and_takes_nothing() {
    let mut common = agreed();
    let before = common.clone();
    for index in [2, 3, 0xffff] {
        set_queue(&mut common, index, 8, GOOD);
        assert_eq!(read(&common, QUEUE_SIZE, 2), 0);
        assert_eq!(read(&common, QUEUE_ENABLE, 2), 0);
        assert_eq!(read(&common, QUEUE_DESC, 4), 0);
        assert_eq!(common.write(QUEUE_MSIX_VECTOR, 2, 0), Action::None);
    }
    common.write(QUEUE_SELECT, 2, 0);
    assert_eq!(common, before);
}

#[test]
fn vectors_that_are_not_there_are_none() {
    let mut common = agreed();
    assert_eq!(common.write(CONFIG_MSIX_VECTOR, 2, 2), Action::ConfigVector(2));
    assert_eq!(read(&common, CONFIG_MSIX_VECTOR, 2), 2);
    assert_eq!(common.write(CONFIG_MSIX_VECTOR, 2, 3), Action::ConfigVector(NO_VECTOR));
    assert_eq!(read(&common, CONFIG_MSIX_VECTOR, 2), u64::from(NO_VECTOR));
    common.write(QUEUE_SELECT, 2, 1);
    assert_eq!(common.write(QUEUE_MSIX_VECTOR, 2, 1), Action::QueueVector { index: 1, vector: 1 });
    assert_eq!(
        common.write(QUEUE_MSIX_VECTOR, 2, 9),
        Action::QueueVector { index: 1, vector: NO_VECTOR }
    );
    assert_eq!(read(&common, QUEUE_MSIX_VECTOR, 2), u64::from(NO_VECTOR));
}

#[test]
fn counts_and_generation_are_there_to_read() {
    let mut common = common();
    assert_eq!(read(&common, NUM_QUEUES, 2), 2);
    assert_eq!(read(&common, CONFIG_GENERATION, 1), 7);
    assert_eq!(common.read(DEVICE_STATUS, 1, 0, status::DEVICE_NEEDS_RESET), 64);
    let before = common.clone();
    for (offset, width) in
        [(NUM_QUEUES, 2), (CONFIG_GENERATION, 1), (QUEUE_NOTIFY_OFF, 2), (DEVICE_FEATURE, 4)]
    {
        common.write(offset, width, 0xaaaa_aaaa);
    }
    assert_eq!(common, before);
}

#[test]
fn wrong_widths_read_all_ones_and_write_nothing() {
    let mut common = agreed();
    let before = common.clone();
    for offset in 0..80 {
        for width in 1..=8 {
            let right = match offset {
                0 | 4 | 8 | 12 => width == 4,
                16 | 18 | 22 | 24 | 26 | 28 | 30 | 56..64 if offset % 2 == 0 => width == 2,
                20 | 21 => width == 1,
                32 | 40 | 48 => width == 4 || width == 8,
                36 | 44 | 52 => width == 4,
                _ => false,
            };
            if !right {
                assert_eq!(read(&common, offset, width), u64::MAX, "{offset} {width}");
                assert_eq!(common.write(offset, width, u64::MAX), Action::None);
            }
        }
    }
    assert_eq!(common, before);
}

proptest! {
    /// Whatever a driver writes: offered features stay, agreed ones are offered, frozen queues stay
    /// frozen and as they were until a reset.
    #[test]
    fn no_sequence_of_writes_breaks_the_rules(
        writes in prop::collection::vec((0_u64..72, prop::sample::select(vec![1_u8, 2, 4, 8]),
            prop_oneof![0_u64..16, Just(0x10_0000), any::<u64>()]), 0..200),
    ) {
        let ram = ram();
        let mut common = agreed();
        let mut frozen: Option<Queues> = None;
        for (offset, width, value) in writes {
            match common.write(offset, width, value) {
                Action::Reset => {
                    common.reset();
                    frozen = None;
                }
                Action::CheckFeatures { features, then_start } => {
                    prop_assert_eq!(features & !(FEATURES | feature::VERSION_1), 0);
                    common.features_ok();
                    if then_start {
                        let _ = common.freeze(&ram);
                        frozen = Some(common.queues.clone());
                    }
                }
                Action::Start => {
                    prop_assert!(frozen.is_none());
                    let _ = common.freeze(&ram);
                    frozen = Some(common.queues.clone());
                }
                _ => {}
            }
            prop_assert_eq!(common.offered, FEATURES | feature::VERSION_1);
            match &frozen {
                Some(queues) => prop_assert_eq!(&common.queues, queues),
                None => prop_assert!(!common.is_frozen()),
            }
        }
    }
}
