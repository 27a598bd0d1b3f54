//! Walks a bus through the configuration ports, as a guest's kernel does: who is there, and how
//! large are its regions?

#![allow(clippy::print_stdout)]

use std::sync::{Arc, Mutex, PoisonError};

use nerite_bus::{Device, Width};
use nerite_pci::{Bar, Bridge, ConfigSpace, Function, Identity};

struct Card(Mutex<ConfigSpace>);

impl Function for Card {
    fn read_config(&self, offset: u8, width: u8) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read(offset, width)
    }

    fn write_config(&self, offset: u8, width: u8, value: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(offset, width, value);
    }

    fn read_memory(&self, _: u64, _: u8) -> Option<u64> {
        None
    }

    fn write_memory(&self, _: u64, _: u8, _: u64) -> bool {
        false
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let identity =
        Identity { vendor: 0x1af4, device: 0x1041, class: 0x02_00_00, ..Identity::default() };
    let mut config = ConfigSpace::new(&identity);
    config.add_bar(0, Bar { size: 0x8000, prefetchable: true, is_64_bit: true })?;
    config.place(0, 0xc000_0000);
    let mut bridge = Bridge::new();
    bridge.add(Arc::new(Card(Mutex::new(config)))).ok_or("no slot is free")?;

    let ports = bridge.ports();
    let dword = Width::new(4).ok_or("four bytes are a width")?;
    let select =
        |slot: u64, register: u64| ports.write(0, dword, 0x8000_0000 | slot << 11 | register);
    for slot in 0..32 {
        select(slot, 0);
        let id = ports.read(4, dword);
        if id == 0xffff_ffff {
            continue;
        }
        select(slot, 0x10);
        let address = ports.read(4, dword);
        ports.write(4, dword, 0xffff_ffff);
        let size = (ports.read(4, dword) & 0xffff_fff0).wrapping_neg() & 0xffff_ffff;
        ports.write(4, dword, address);
        println!(
            "slot {slot}: {:04x}:{:04x}, {size:#x} bytes at {:#x}",
            id & 0xffff,
            id >> 16,
            address & !0xf
        );
    }
    Ok(())
}
