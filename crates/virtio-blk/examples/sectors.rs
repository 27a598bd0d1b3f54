//! A driver writes a sector of a disk and reads it back.

use std::io::Write;
use std::sync::Arc;

use nerite_pci::NotConnected;
use nerite_virtio::fake::{Driver, FakeQueue, RAM, Rings, WRITE, ram};
use nerite_virtio::{NoDoorbells, VirtioPci, Wiring, region};
use nerite_virtio_blk::{Blk, RawFile};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("nerite-sectors-{}.img", std::process::id()));
    std::fs::write(&path, [0; 64 << 10])?;
    let disk = RawFile::open(&path, false)?;
    // The open file is enough.
    std::fs::remove_file(&path)?;

    let ram = ram(1 << 20);
    let wiring = Wiring {
        ram: ram.clone(),
        doorbells: Arc::new(NoDoorbells),
        messages: Arc::new(NotConnected),
        address: 0xc000_0000,
        line: 11,
    };
    let function = Arc::new(VirtioPci::new(
        Arc::new(Blk::new(Box::new(disk), *b"an example of a disk")?),
        wiring,
    )?);
    function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(())))?;

    let driver = Driver::new(function.clone());
    driver.negotiate(0);
    driver.set_queue(0, &Rings::at(RAM, 16));
    driver.ready();
    let mut queue = FakeQueue::new(ram.clone(), Rings::at(RAM, 16));
    let (header, data, status) = (RAM + 0x4000, RAM + 0x5000, RAM + 0x6000);
    let mut out = std::io::stdout();
    writeln!(out, "a disk of {} sectors", driver.read(region::DEVICE, 8))?;
    for (kind, direction) in [(1_u32, 0), (0, WRITE)] {
        if kind == 1 {
            ram.write(data, b"written by a guest")?;
        } else {
            ram.zero(data, 512)?;
        }
        ram.write_obj(header, &u64::from(kind))?;
        // Sector 5.
        ram.write_obj(header + 8, &5_u64)?;
        queue.add(&[(header, 16, 0), (data, 512, direction), (status, 1, WRITE)]);
        driver.kick(0);
        while queue.take_used().is_none() {
            std::thread::yield_now();
        }
        writeln!(out, "request of kind {kind}: status {}", ram.read_obj::<u8>(status)?)?;
    }
    writeln!(out, "read back: {}", String::from_utf8_lossy(&ram.read_cstr(data, 100)?))?;
    writeln!(out, "{:?}", function.device().totals())?;
    Ok(())
}
