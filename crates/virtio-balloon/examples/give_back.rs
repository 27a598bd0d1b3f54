//! A driver gives a page, whose memory goes back to the host.

use std::io::Write;
use std::sync::Arc;

use nerite_pci::NotConnected;
use nerite_virtio::fake::{Driver, FakeQueue, RAM, Rings, ram};
use nerite_virtio::{NoDoorbells, VirtioPci, Wiring};
use nerite_virtio_balloon::{Balloon, PAGE};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ram = ram(1 << 20);
    let wiring = Wiring {
        ram: ram.clone(),
        doorbells: Arc::new(NoDoorbells),
        messages: Arc::new(NotConnected),
        address: 0xc000_0000,
        line: 11,
    };
    let function = Arc::new(VirtioPci::new(Arc::new(Balloon::new()?), wiring)?);
    function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(())))?;
    let driver = Driver::new(function);
    driver.negotiate(0);
    for (queue, at) in [(0, RAM), (1, RAM + 0x1000)] {
        driver.set_queue(queue, &Rings::at(at, 8));
    }
    driver.ready();
    let mut queue = FakeQueue::new(ram.clone(), Rings::at(RAM, 8));
    let (number, page) = (RAM + 0x2000, RAM + 0x1_0000);
    ram.write(number, &u32::try_from(page / PAGE)?.to_le_bytes())?;
    let before = ram.resident_bytes();
    ram.write(page, b"not needed any more")?;
    let used = ram.resident_bytes();
    queue.add(&[(number, 4, 0)]);
    driver.kick(0);
    while queue.take_used().is_none() {
        std::thread::yield_now();
    }
    let after = ram.resident_bytes();
    writeln!(std::io::stdout(), "{before:?}, with the page {used:?}, without it {after:?}")?;
    Ok(())
}
