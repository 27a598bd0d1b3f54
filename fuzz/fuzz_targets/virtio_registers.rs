//! PCI configuration ports, configuration space, base addresses, MSI-X and virtio's registers, with
//! any accesses: what is read-only stays, and after a reset the card's driver comes as far as ever.
#![no_main]

use std::io;
use std::sync::Arc;

use nerite_bus::{Device, Width};
use nerite_memory::GuestRam;
use nerite_pci::{Bridge, ConfigPorts, Function, HostBridge, NotConnected, WINDOW, Window};
use nerite_virtio::fake::{Driver, RAM, Rings, ram};
use nerite_virtio::{
    Activation, BAR_SIZE, Event, NoDoorbells, VirtioPci, Wiring, common_cfg, status,
};
use nerite_virtio_net::{Engine, Mac, Net, NetConfig, Side};

/// Guest-physical address of the card.
const BAR: u64 = 0xc000_0000;
/// Accesses of one input.
const STEPS: usize = 400;
/// Register writes of a driver that is ready.
const READY: u8 = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;

/// Looks at what it is given.
struct Looks {
    ram: Arc<GuestRam>,
    is_running: bool,
}

impl Engine for Looks {
    fn start(&mut self, activation: &Activation, _: &[Event], broken: &Event) -> io::Result<()> {
        assert!(!std::mem::replace(&mut self.is_running, true), "started twice");
        for queue in activation.queues.iter().flatten() {
            assert!(queue.size.is_power_of_two() && queue.size <= 256);
            let size = u64::from(queue.size);
            for (at, bytes) in [
                (queue.descriptors, 16 * size),
                (queue.available, 6 + 2 * size),
                (queue.used, 6 + 8 * size),
            ] {
                self.ram.check(at, bytes).expect("rings in RAM");
            }
        }
        // Now and then something is wrong.
        if activation.features & 1 != 0 {
            broken.signal();
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.is_running = false;
    }

    fn next_available(&mut self, _: u16) -> io::Result<u16> {
        Ok(0)
    }

    fn set_paused(&mut self, _: bool) -> io::Result<()> {
        Ok(())
    }
}

struct Machine {
    function: Arc<VirtioPci<Net>>,
    ports: ConfigPorts,
    window: Window,
}

impl Machine {
    fn step(&self, (kind, at, value): (u8, u16, u64)) {
        let bytes = (kind >> 5) + 1;
        let width = Width::new(bytes).expect("a width");
        let value = width.truncate(value);
        let half = |register| u64::from(self.function.read_config(register, 4));
        let bar = half(0x10) & !0xf | half(0x14) << 32;
        let offset = u64::from(at) % u64::from(BAR_SIZE + 8);
        // Registers are a few bytes of a page.
        let near = offset & 0x703f;
        let small = [1, 2, 4, 4][usize::from(kind >> 6)];
        match kind & 15 {
            0 => drop(self.ports.read(u64::from(at) % 8, width)),
            1 => self.ports.write(u64::from(at) % 8, width, value),
            2 => self.ports.write(0, Width::new(4).expect("a width"), 1 << 31 | (value & 0xfff)),
            3 => drop(self.window.read(value % (WINDOW.end() - WINDOW.start()), width)),
            4 => self.window.write(value % (WINDOW.end() - WINDOW.start()), width, value),
            5 => drop(self.function.read_config(at as u8 & !3, small)),
            6 | 7 => self.function.write_config(at as u8 & !3, small, value as u32),
            8 => drop(self.function.read_memory(bar.wrapping_add(offset), bytes)),
            9 => drop(self.function.read_memory(bar.wrapping_add(near), bytes)),
            10 => drop(self.function.write_memory(bar.wrapping_add(offset), bytes, value)),
            // Addresses of rings that may be right.
            11 => drop(self.function.write_memory(
                bar.wrapping_add(near),
                bytes,
                RAM + (value & 0xf_fff0),
            )),
            12 => self.stage(at, bar, value),
            _ => drop(self.function.write_memory(bar.wrapping_add(near), bytes, value)),
        }
    }

    /// A stage of the handshake, in any order.
    fn stage(&self, number: u16, bar: u64, value: u64) {
        let write = |at, bytes, value| {
            self.function.write_memory(bar.wrapping_add(at), bytes, value);
        };
        let word = value >> 32 & 1;
        match number & 7 {
            0 => {
                write(common_cfg::DRIVER_FEATURE_SELECT, 4, word);
                write(
                    common_cfg::DRIVER_FEATURE,
                    4,
                    if word == 1 { 1 } else { value & 0x3000_0fff },
                );
            }
            1 | 2 => {
                write(common_cfg::QUEUE_SELECT, 2, word);
                let page = RAM + (value & 0xe000);
                for (at, value) in [
                    (common_cfg::QUEUE_DESC, page),
                    (common_cfg::QUEUE_DRIVER, page + 0x1000),
                    (common_cfg::QUEUE_DEVICE, page + 0x1800),
                ] {
                    write(at, 8, value);
                }
                write(common_cfg::QUEUE_ENABLE, 2, 1);
            }
            3 => write(common_cfg::DEVICE_STATUS, 1, 3),
            4 => write(common_cfg::DEVICE_STATUS, 1, 11),
            _ => write(common_cfg::DEVICE_STATUS, 1, 15),
        }
    }
}

libfuzzer_sys::fuzz_target!(|steps: Vec<(u8, u16, u64)>| {
    let ram = ram(1 << 20);
    let looks = Looks { ram: ram.clone(), is_running: false };
    let config =
        NetConfig { mac: Mac([2, 0, 0, 0, 0, 1]), mtu: Some(1500), pairs: 2, offloads: u64::MAX };
    let card = Arc::new(Net::new(config, Side::Engine(Box::new(looks))).expect("a card"));
    let wiring = Wiring {
        ram,
        doorbells: Arc::new(NoDoorbells),
        messages: Arc::new(NotConnected),
        address: BAR,
        line: 11,
    };
    let function = Arc::new(VirtioPci::new(card, wiring).expect("a function"));
    let mut bridge = Bridge::new();
    bridge.add(Arc::new(HostBridge::new()));
    bridge.add(function.clone());
    let machine =
        Machine { ports: bridge.ports(), window: bridge.window(), function: function.clone() };
    let fixed = || [0, 8, 0x2c, 0x34].map(|at| function.read_config(at, 4));
    let before = fixed();
    steps.into_iter().take(STEPS).for_each(|step| machine.step(step));
    assert_eq!(fixed(), before);
    // As firmware has it, and then as a driver that knows its trade.
    function.write_config(4, 2, 6);
    function.write_config(0x10, 4, BAR as u32);
    function.write_config(0x14, 4, (BAR >> 32) as u32);
    let driver = Driver::new(function);
    driver.negotiate(0);
    (0..2)
        .for_each(|index| driver.set_queue(index, &Rings::at(RAM + 0x2000 * u64::from(index), 16)));
    driver.ready();
    assert_eq!(driver.status(), READY);
});
