//! A driver asks for random bytes and throws dice with them.

use std::io::Write;
use std::sync::Arc;

use nerite_pci::NotConnected;
use nerite_virtio::fake::{Driver, FakeQueue, RAM, Rings, WRITE, ram};
use nerite_virtio::{NoDoorbells, VirtioPci, Wiring};
use nerite_virtio_rng::Rng;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ram = ram(1 << 20);
    let wiring = Wiring {
        ram: ram.clone(),
        doorbells: Arc::new(NoDoorbells),
        messages: Arc::new(NotConnected),
        address: 0xc000_0000,
        line: 11,
    };
    let function = Arc::new(VirtioPci::new(Arc::new(Rng::new()?), wiring)?);
    function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(())))?;
    let driver = Driver::new(function);
    driver.negotiate(0);
    driver.set_queue(0, &Rings::at(RAM, 8));
    driver.ready();
    let mut queue = FakeQueue::new(ram.clone(), Rings::at(RAM, 8));
    queue.add(&[(RAM + 0x1000, 10, WRITE)]);
    driver.kick(0);
    while queue.take_used().is_none() {
        std::thread::yield_now();
    }
    let mut bytes = [0; 10];
    ram.read(RAM + 0x1000, &mut bytes)?;
    writeln!(std::io::stdout(), "{:?}", bytes.map(|byte| byte % 6 + 1))?;
    Ok(())
}
