//! A guest reads a line from its console and writes it back.

use std::io::Write;
use std::sync::Arc;

use nerite_pci::NotConnected;
use nerite_virtio::fake::{Driver, FakeQueue, RAM, Rings, WRITE, ram};
use nerite_virtio::{NoDoorbells, VirtioPci, Wiring};
use nerite_virtio_console::Console;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let output = Box::new(|bytes: &[u8]| std::io::stdout().write_all(bytes));
    let ram = ram(1 << 20);
    let wiring = Wiring {
        ram: ram.clone(),
        doorbells: Arc::new(NoDoorbells),
        messages: Arc::new(NotConnected),
        address: 0xc000_0000,
        line: 11,
    };
    let function = Arc::new(VirtioPci::new(Arc::new(Console::new()?), wiring)?);
    function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(())), output)?;
    let driver = Driver::new(function.clone());
    driver.negotiate(0);
    let rings = [Rings::at(RAM, 8), Rings::at(RAM + 0x1000, 8)];
    for (index, rings) in (0..).zip(&rings) {
        driver.set_queue(index, rings);
    }
    driver.ready();
    let [mut receive, mut transmit] = rings.map(|rings| FakeQueue::new(ram.clone(), rings));

    // Input waits until the guest has written something.
    ram.write(RAM + 0x2000, b"? ")?;
    transmit.add(&[(RAM + 0x2000, 2, 0)]);
    driver.kick(1);
    while transmit.take_used().is_none() {
        std::thread::yield_now();
    }
    function.device().enqueue(b"a line for the guest\n");
    receive.add(&[(RAM + 0x2000, 100, WRITE)]);
    driver.kick(0);
    let length = loop {
        if let Some((_, length)) = receive.take_used() {
            break length;
        }
        std::thread::yield_now();
    };
    transmit.add(&[(RAM + 0x2000, length, 0)]);
    driver.kick(1);
    while transmit.take_used().is_none() {
        std::thread::yield_now();
    }
    Ok(())
}
