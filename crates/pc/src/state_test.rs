use std::sync::Arc;

use nerite_bus::Width;
use nerite_devices::pc::TestMemory;
use nerite_devices::{Console, Sink};
use nerite_pci::{Bridge, Event, HostBridge};
use nerite_platform::{PlatformState, StopToken};
use nerite_saved::testing::{Mutation, golden, mutated, through_json};
use proptest::prelude::*;

use super::*;
use crate::plan::PcPlan;
use crate::platform::Parts;

const KERNEL: Range<u64> = 0x10_0000..0x20_0000;

fn devices(debug_exit: Option<u16>) -> Devices {
    let parts = Parts {
        console: Arc::new(Console::new(Sink::Null)),
        serial_interrupt: Event::new().unwrap(),
        rate: None,
        time: Arc::new(nerite_devices::HostTime::new()),
        stop: StopToken::new().unwrap(),
        debug_exit,
        interrupts: Arc::new(|_, _| ()),
    };
    let plan = PcPlan {
        memory: 1 << 30,
        cpus: 2,
        command_line: String::new(),
        generation: [0; 16],
        lines: Vec::new(),
    };
    let mut bridge = Bridge::new();
    bridge.add(Arc::new(HostBridge::new())).unwrap();
    Devices::new(&plan, parts, &bridge).unwrap()
}

fn write(devices: &Devices, port: u64, width: u8, value: u64) {
    devices.ports.write(port, Width::new(width).unwrap(), value);
}

fn read(devices: &Devices, port: u64, width: u8) -> u64 {
    devices.ports.read(port, Width::new(width).unwrap())
}

/// Devices that a guest has used.
fn busy(debug_exit: Option<u16>) -> Devices {
    let devices = devices(debug_exit);
    for (port, width, value) in [
        (0x3f9, 1, 3),
        (0x3ff, 1, 0x77),
        (0x3f8, 1, u64::from(b'x')),
        (0x70, 1, 0x45),
        (0x71, 1, 0x99),
        (0x510, 2, 5),
        (0x602, 2, 0x20),
        (0xcf9, 1, 2),
        (0xcf8, 4, 0x8000_0000),
        (0xe0, 4, 0x1234_5678),
    ] {
        write(&devices, port, width, value);
    }
    devices.serial.enqueue(b"in");
    devices.mmio.write(TestMemory::ADDRESS + 8, Width::new(4).unwrap(), 0xfeed);
    devices
}

fn check(devices: &Devices) {
    for (port, width, value) in [
        (0x3ff, 1, 0x77),
        (0x3f8, 1, u64::from(b'i')),
        (0x71, 1, 0x99),
        (0x511, 1, 2),
        (0x602, 2, 0x20),
        (0xcf9, 1, 2),
        (0xcfc, 4, 0x0008_1b36),
    ] {
        assert_eq!(read(devices, port, width), value, "{port:#x}");
    }
    assert_eq!(devices.console.save().line, b"x");
}

#[test]
fn a_pc_goes_on_as_it_was() {
    let before = busy(Some(0xf4));
    let state = PlatformState::new(&PcState::of(&before, &KERNEL)).unwrap();
    let state = through_json(&state).read::<PcState>().unwrap();
    assert_eq!(state.kernel().unwrap(), KERNEL);
    let after = devices(Some(0xf4));
    state.restore(&after).unwrap();
    check(&after);
    assert_eq!(read(&after, 0xe0, 4), 0x1234_5678);
    assert_eq!(after.mmio.read(TestMemory::ADDRESS + 8, Width::new(4).unwrap()), 0xfeed);
    let error = state.restore(&devices(None)).unwrap_err().to_string();
    assert_eq!(error, "saved state of the PC: debug-exit port is not this machine's");
}

#[test]
fn states_of_version_1_can_be_restored() {
    let saved = golden("src/state_v1.json", &PcState::of(&busy(None), &KERNEL));
    let devices = devices(None);
    saved.restore(&devices).unwrap();
    check(&devices);
}

#[test]
fn impossible_states_are_refused_by_name() {
    let state = PcState::of(&busy(None), &KERNEL);
    for (expected, bad) in [
        ("version 2", PcState { version: 2, ..state.clone() }),
        ("place of the kernel", PcState { kernel_end: KERNEL.start, ..state }),
    ] {
        let text = bad.kernel().unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
}

proptest! {
    #[test]
    fn hostile_states_are_survived(mutations in prop::collection::vec(any::<Mutation>(), 1..6)) {
        if let Some(saved) = mutated(&PcState::of(&busy(None), &KERNEL), &mutations) {
            let devices = devices(None);
            let _ = saved.kernel().and_then(|_| saved.restore(&devices));
            for port in 0..0x1000 {
                read(&devices, port, 1);
            }
        }
    }
}
