//! Two devices on a port bus, and what accesses to and beside them do: `cargo run -p nerite-bus
//! --example ports`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nerite_bus::{Bus, Device, Width};

/// Keeps what was last written.
#[derive(Default)]
struct Latch(AtomicU64);

impl Device for Latch {
    fn read(&self, _offset: u64, _width: Width) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn write(&self, _offset: u64, _width: Width, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Can only be read: each byte is its offset.
struct Offsets;

impl Device for Offsets {
    fn read(&self, offset: u64, width: Width) -> u64 {
        (0..u64::from(width.bytes()))
            .rev()
            .fold(0, |value, byte| value << 8 | (offset + byte) & 0xff)
    }

    fn write(&self, offset: u64, _width: Width, value: u64) {
        println!("  the device ignores a write of {value:#x} at its offset {offset}");
    }
}

fn main() -> Result<(), nerite_bus::Error> {
    let mut ports = Bus::new("port");
    ports.insert("latch", 0x80..=0x83, Arc::new(Latch::default()))?;
    ports.insert("offsets", 0x60..=0x6f, Arc::new(Offsets))?;
    println!("{ports:#x?}");
    if let Err(error) = ports.insert("late", 0x6c..=0x7f, Arc::new(Offsets)) {
        println!("{error}");
    }

    for (port, bytes, value) in [(0x80, 4, 0x1234_5678), (0x62, 2, 7), (0x99, 1, 1)] {
        if let Some(width) = Width::new(bytes) {
            println!("write {value:#x} to port {port:#x}, {bytes} byte(s)");
            ports.write(port, width, value);
        }
    }
    for (port, bytes) in [(0x80, 4), (0x80, 1), (0x62, 2), (0x6f, 2), (0x99, 4)] {
        if let Some(width) = Width::new(bytes) {
            println!("read port {port:#x}, {bytes} byte(s): {:#x}", ports.read(port, width));
        }
    }
    Ok(())
}
