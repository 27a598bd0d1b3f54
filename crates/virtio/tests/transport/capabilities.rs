//! The capabilities by which drivers find the registers.

use nerite_pci::Function;
use nerite_virtio::{common_cfg, region};

use crate::machine;

/// Capabilities of vendor type by their virtio type: offset in configuration space.
pub(crate) fn capability(function: &dyn Function, kind: u32) -> u8 {
    let mut at = function.read_config(0x34, 1) as u8;
    loop {
        if function.read_config(at, 1) == 9 && function.read_config(at + 3, 1) == kind {
            return at;
        }
        at = function.read_config(at + 1, 1) as u8;
        assert_ne!(at, 0, "capability {kind}");
    }
}

#[test]
fn capabilities_say_where_registers_are() {
    let machine = machine();
    let function = machine.function.as_ref();
    for (kind, offset, length) in [
        (1, region::COMMON, 64),
        (2, region::NOTIFY, 8),
        (3, region::ISR, 1),
        (4, region::DEVICE, 0x1000),
    ] {
        let at = capability(function, kind);
        assert_eq!(function.read_config(at + 4, 1), 0, "base address 0");
        assert_eq!(u64::from(function.read_config(at + 8, 4)), offset);
        assert_eq!(function.read_config(at + 12, 4), length);
    }
    assert_eq!(function.read_config(capability(function, 2) + 16, 4), 4);
}

#[test]
fn capabilities_are_laid_out_as_specified() {
    let machine = machine();
    let function = machine.function.as_ref();
    let mut kinds = Vec::new();
    let mut at = function.read_config(0x34, 1) as u8;
    while at != 0 {
        if function.read_config(at, 1) == 9 {
            let (length, kind) = (function.read_config(at + 2, 1), function.read_config(at + 3, 1));
            // With the multiplier of notifications, and the data of the access capability.
            assert_eq!(length, if matches!(kind, 2 | 5) { 20 } else { 16 });
            assert_eq!(function.read_config(at + 8, 4) % 4, 0, "offset of capability {kind}");
            kinds.push(kind);
        }
        at = function.read_config(at + 1, 1) as u8;
    }
    kinds.sort_unstable();
    assert_eq!(kinds, [1, 2, 3, 4, 5], "neither shared memory (8) nor vendor data (9)");
    let notify = capability(function, 2);
    let (length, multiplier) =
        (function.read_config(notify + 12, 4), function.read_config(notify + 16, 4));
    for queue in 0..2 {
        machine.driver.write(common_cfg::QUEUE_SELECT, 2, queue);
        let offset = machine.driver.read(common_cfg::QUEUE_NOTIFY_OFF, 2) as u32;
        assert!(length >= offset * multiplier + 2, "queue {queue}");
    }
    assert!(multiplier == 0 || multiplier.is_power_of_two() && multiplier > 1);
}

#[test]
fn registers_can_be_reached_through_configuration_space() {
    let machine = machine();
    let function = machine.function.as_ref();
    let at = capability(function, 5);
    let access = |offset: u32, length: u32| {
        function.write_config(at + 4, 1, 0);
        function.write_config(at + 8, 4, offset);
        function.write_config(at + 12, 4, length);
    };
    access(common_cfg::DEVICE_STATUS as u32, 1);
    function.write_config(at + 16, 4, 3);
    assert_eq!(machine.driver.status(), 3);
    assert_eq!(function.read_config(at + 16, 4), 3);
    access(region::DEVICE as u32, 4);
    assert_eq!(function.read_config(at + 16, 4), 0x0403_0201);
    for (offset, length) in
        [(0xffff_fffc, 4), (0x7ffe, 4), (2, 4), (0, 3), (0, 0), (0, 8), (0, 0xffff_ffff)]
    {
        access(offset, length);
        function.write_config(at + 16, 4, 0);
        assert_eq!(function.read_config(at + 16, 4), 0xffff_ffff, "{offset:#x} {length}");
    }
    function.write_config(at + 4, 1, 1);
    assert_eq!(function.read_config(at + 16, 4), 0xffff_ffff, "another base address");
    assert_eq!(machine.driver.status(), 3);
}
