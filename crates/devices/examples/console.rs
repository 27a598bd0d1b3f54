//! A guest's output as it gets to the terminal, and a search for PCI devices:
//! `cargo run -p nerite-devices --example console`.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nerite_bus::{Bus, Width};
use nerite_devices::{Console, EmptyPciHost, Sink};
use rustix::event::{PollFd, PollFlags, poll};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let terminal = rustix::io::dup(rustix::stdio::stdout())?;
    let console = Console::new(Sink::Fd(terminal))?;

    // The guest: whole lines, then a prompt, one byte at a time.
    console.write(b"a buffer goes out at once\n")?;
    for byte in b"bytes wait for the end of their line\na prompt has none, but is seen after " {
        console.put(*byte)?;
    }

    // Whoever runs the machine.
    let start = Instant::now();
    poll(&mut [PollFd::from_borrowed_fd(console.partial_line(), PollFlags::IN)], None)?;
    std::thread::sleep(Console::GRACE);
    while !console.flush()? {
        std::thread::sleep(Duration::from_millis(1));
    }
    console.write(format!("{} ms> \n", start.elapsed().as_millis()).as_bytes())?;

    let found = search()?;
    console.write(format!("PCI devices found: {found}\n").as_bytes())?;
    Ok(())
}

/// Looks for PCI devices on one bus as a kernel does; gives their number.
fn search() -> Result<u32, Box<dyn std::error::Error>> {
    let mut ports = Bus::new("port");
    let range = u64::from(EmptyPciHost::FIRST_PORT)..=u64::from(EmptyPciHost::LAST_PORT);
    ports.insert("PCI host", range, Arc::new(EmptyPciHost::default()))?;
    let dword = Width::new(4).ok_or_else(|| io::Error::other("4 bytes are a width"))?;
    let mut found = 0;
    for device in 0..32 {
        ports.write(0xcf8, dword, 0x8000_0000 | device << 11);
        if ports.read(0xcfc, dword) != 0xffff_ffff {
            found += 1;
        }
    }
    Ok(found)
}
