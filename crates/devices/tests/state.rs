//! Devices that are saved, and restored as others.

#![cfg(test)]

use std::sync::Arc;
use std::time::Duration;

use nerite_bus::{Device, Width};
use nerite_devices::pc::{
    Clock, ClockState, Equipment, FwCfg, FwCfgState, PowerManagement, PowerManagementState,
    Requests, ResetControl, Serial, SerialState, TestMemory, TestRegister,
};
use nerite_devices::{Console, ConsoleState, HostTime, Sink, VirtualTime};
use nerite_event::Event;
use nerite_saved::testing::{Mutation, golden, mutated, through_json};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// All devices of a PC with a state of their own.
struct Devices {
    console: Arc<Console>,
    interrupt: Event,
    serial: Serial,
    clock: Clock,
    power: PowerManagement,
    reset: ResetControl,
    fw_cfg: FwCfg,
    register: TestRegister,
    memory: TestMemory,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct State {
    console: ConsoleState,
    serial: SerialState,
    clock: ClockState,
    power: PowerManagementState,
    reset: u8,
    fw_cfg: FwCfgState,
    register: u32,
}

/// A port that is not there.
struct Absent;

impl Device for Absent {
    fn read(&self, _: u64, width: Width) -> u64 {
        width.all_ones()
    }

    fn write(&self, _: u64, _: Width, _: u64) {}
}

impl Devices {
    fn new() -> Self {
        let (console, interrupt) = (Arc::new(Console::new(Sink::Null)), Event::new().unwrap());
        let requests = Arc::new(Requests::default());
        let equipment = Equipment { low_memory: 64 << 20, high_memory: 0, cpus: 1 };
        let fixed = VirtualTime::new(|| Duration::from_secs(1_000_000));
        Self {
            serial: Serial::new(console.clone(), interrupt.clone(), requests.clone()).unwrap(),
            console,
            interrupt,
            clock: Clock::new(&equipment, Arc::new(fixed), Box::new(|_| ()), Box::new(|| ())),
            power: PowerManagement::new(
                5,
                requests.clone(),
                Arc::new(HostTime::new()),
                Box::new(|_| ()),
            ),
            reset: ResetControl::new(Arc::new(Absent), requests),
            fw_cfg: FwCfg::new(64 << 20, 1),
            register: TestRegister::default(),
            memory: TestMemory::default(),
        }
    }

    fn ports(&self) -> [&dyn Device; 6] {
        [&self.serial, &self.clock, &self.power, &self.reset, &self.fw_cfg, &self.register]
    }

    fn save(&self) -> State {
        State {
            console: self.console.save(),
            serial: self.serial.save(),
            clock: self.clock.save(),
            power: self.power.save(),
            reset: self.reset.save(),
            fw_cfg: self.fw_cfg.save(),
            register: self.register.save(),
        }
    }

    fn restore(&self, saved: &State) -> Result<(), nerite_saved::RestoreError> {
        self.console.restore(&saved.console)?;
        self.serial.restore(&saved.serial)?;
        self.clock.restore(&saved.clock)?;
        self.power.restore(saved.power)?;
        self.reset.restore(saved.reset);
        self.fw_cfg.restore(saved.fw_cfg);
        self.register.restore(saved.register);
        Ok(())
    }

    /// All that a guest can read, but the PM timer, which keeps running. Reading changes some of
    /// it.
    fn visible(&self) -> Vec<u64> {
        let byte = Width::new(1).unwrap();
        let offsets = [0..8, 1..2, 0..8, 1..2, 0..2, 0..4];
        let ports = self.ports().into_iter().zip(offsets);
        ports.flat_map(|(port, offsets)| offsets.map(|offset| port.read(offset, byte))).collect()
    }
}

/// A device, an offset, a width and a value; even numbers are written.
type Access = (u8, u64, u8, u64);

fn access(devices: &Devices, (device, offset, width, value): Access) {
    let port = devices.ports()[usize::from(device / 2) % 6];
    let width = Width::new(width).unwrap();
    if device % 2 == 0 {
        port.write(offset, width, value);
    } else {
        port.read(offset, width);
    }
}

fn accesses() -> impl Strategy<Value = Vec<Access>> {
    let width = prop::sample::select(vec![1_u8, 2, 4]);
    prop::collection::vec(
        (any::<u8>(), 0_u64..10, width, prop_oneof![0_u64..256, any::<u64>()]),
        0..60,
    )
}

/// Devices with something in every field of their state.
fn busy() -> Devices {
    let devices = Devices::new();
    let byte = Width::new(1).unwrap();
    for (offset, value) in [(3, 0x83), (0, 1), (3, 3), (1, 3), (7, 0x5a), (0, u64::from(b'>'))] {
        devices.serial.write(offset, byte, value);
    }
    devices.serial.enqueue(b"typed");
    devices.clock.write(0, byte, 0x40);
    devices.clock.write(1, byte, 0x77);
    devices.power.write(2, Width::new(2).unwrap(), 0x120);
    devices.reset.write(1, byte, 2);
    devices.fw_cfg.write(0, Width::new(2).unwrap(), 5);
    devices.fw_cfg.read(1, byte);
    devices.register.write(0, Width::new(4).unwrap(), 0x0102_0304);
    devices
}

#[test]
fn states_of_version_1_can_be_restored() {
    let mut state = busy().save();
    state.power.timer = 0x1234_5678;
    let saved = golden("tests/state_v1.json", &state);
    let devices = Devices::new();
    devices.restore(&saved).unwrap();
    let after = devices.save();
    assert!(after.power.timer.wrapping_sub(0x1234_5678) < 100_000_000, "the timer keeps running");
    state.power.timer = after.power.timer;
    assert_eq!(after, state);
    assert_eq!(devices.visible(), busy().visible());
}

#[test]
fn an_interrupt_of_the_serial_port_is_not_lost() {
    let devices = Devices::new();
    devices.restore(&through_json(&busy().save())).unwrap();
    assert!(devices.interrupt.take());
    let byte = Width::new(1).unwrap();
    assert_eq!(devices.serial.read(2, byte), 0xc6, "input, and room for output");
    let text = [(); 5].map(|()| devices.serial.read(0, byte));
    assert_eq!(text, b"typed".map(u64::from));
    assert_eq!(devices.serial.read(5, byte), 0x60);
    assert_eq!(devices.console.save().line, b">");
    assert!(devices.console.has_partial_line());
}

#[test]
fn memory_of_the_test_device_comes_back() {
    let (one, two) = (Devices::new().memory, Devices::new().memory);
    one.write(0x8000, Width::new(4).unwrap(), 0xdead_beef);
    two.restore(&one.save()).unwrap();
    assert_eq!(two.read(0x8000, Width::new(4).unwrap()), 0xdead_beef);
    assert!(two.restore(&[0; 5]).is_err());
}

#[test]
fn impossible_states_are_refused_by_name() {
    type Change = fn(&mut State);
    let changes: [(&str, Change); 8] = [
        ("console: line", |saved| saved.console.line = vec![b'x'; 4097]),
        ("serial port: interrupt enable", |saved| saved.serial.interrupt_enable = 0x10),
        ("serial port: interrupt identification", |saved| {
            saved.serial.interrupt_identification = 3
        }),
        ("serial port: input", |saved| saved.serial.input = vec![0; 65]),
        ("clock: register", |saved| saved.clock.index = 0x80),
        ("clock: size of memory", |saved| saved.clock.memory.truncate(127)),
        ("clock: fixed register", |saved| saved.clock.memory[0x0b] = 0),
        ("power management: control", |saved| saved.power.control = 0x2001),
    ];
    for (expected, change) in changes {
        let mut saved = busy().save();
        change(&mut saved);
        let text = Devices::new().restore(&saved).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
}

proptest! {
    /// Whatever a guest does, the devices look the same to it after they were restored.
    #[test]
    fn every_state_that_can_be_reached_can_be_restored(before in accesses(), after in accesses()) {
        let (one, two) = (Devices::new(), Devices::new());
        one.serial.enqueue(b"input");
        before.into_iter().for_each(|each| access(&one, each));
        let saved = through_json(&one.save());
        two.restore(&saved).unwrap();
        prop_assert_eq!(&State { power: saved.power, ..two.save() }, &saved);
        for each in after {
            access(&one, each);
            access(&two, each);
        }
        prop_assert_eq!(one.visible(), two.visible());
    }

    /// Nothing in a saved state makes a device panic.
    #[test]
    fn hostile_states_are_survived(
        mutations in prop::collection::vec(any::<Mutation>(), 1..6),
        after in accesses(),
    ) {
        if let Some(saved) = mutated(&busy().save(), &mutations) {
            let devices = Devices::new();
            let _ = devices.restore(&saved);
            after.into_iter().for_each(|each| access(&devices, each));
            devices.serial.enqueue(&[7; 100]);
            devices.visible();
        }
    }
}
