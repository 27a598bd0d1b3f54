//! Own devices: one with a port, one with a register in memory that raises an interrupt line:
//! `cargo run -p nerite-machine --example own_devices`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nerite_machine::config::{Accelerator, Output};
use nerite_machine::nerite_bus::{Device, Width};
use nerite_machine::nerite_event::Event;
use nerite_machine::{Config, Embedding, Machine};
use nerite_testkit::guest::Guest;

/// Port of a device that counts how often it is read, and shows it as a digit.
const COUNTER: u16 = 0x900;
/// Address of a register that keeps what is written to it.
const LATCH: u32 = 0xfed4_0000;

#[derive(Default)]
struct Counter(AtomicU64);

impl Device for Counter {
    fn read(&self, _offset: u64, _width: Width) -> u64 {
        u64::from(b'0') + self.0.fetch_add(1, Ordering::Relaxed) % 10
    }

    fn write(&self, _offset: u64, _width: Width, _value: u64) {}
}

struct Latch {
    value: AtomicU64,
    interrupt: Event,
}

impl Device for Latch {
    fn read(&self, _offset: u64, _width: Width) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    fn write(&self, _offset: u64, _width: Width, value: u64) {
        self.value.store(value, Ordering::Relaxed);
        // A guest with a handler for the line is interrupted now; this one has none.
        self.interrupt.signal();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let guest = Guest::new().print_port(COUNTER).print_port(COUNTER);
    let image = guest.store32(LATCH, 0x2a).print_memory(LATCH, 1).image();
    let counter = Arc::new(Counter::default());
    let interrupt = Event::new()?;
    let latch = Arc::new(Latch { value: AtomicU64::default(), interrupt: interrupt.clone() });
    let (first, registers) = (u64::from(LATCH), u64::from(LATCH)..=u64::from(LATCH) + 3);
    let embedding = Embedding::new()
        .image(image)
        .ports("counter", COUNTER..=COUNTER, counter.clone())
        .mmio("latch", registers.clone(), latch.clone())
        .interrupt(7, interrupt);
    let config =
        Config { accelerator: Accelerator::Software, output: Output::None, ..Config::default() };
    let outcome = Machine::embed(&config, embedding)?.start()?.wait(None)?;
    let (reads, value) = (counter.0.load(Ordering::Relaxed), latch.value.load(Ordering::Relaxed));
    println!("{outcome}; the counter was read {reads} times, the latch has {value:#x}");
    assert_eq!((reads, value), (2, 0x2a));

    // An address belongs to one device.
    let twice = Embedding::new()
        .image(Guest::new().image())
        .mmio("latch", registers, latch.clone())
        .mmio("intruder", first..=first, latch);
    let error = Machine::embed(&config, twice).err().ok_or("two devices at one address")?;
    println!("{error}");
    Ok(())
}
