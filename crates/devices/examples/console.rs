//! A guest's output as it gets to the terminal:
//! `cargo run -p nerite-devices --example console`.

use std::time::{Duration, Instant};

use nerite_devices::{Console, Sink};
use rustix::event::{PollFd, PollFlags, poll};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let terminal = rustix::io::dup(rustix::stdio::stdout())?;
    let console = Console::new(Sink::Fd(terminal));

    // The guest: whole lines, then a prompt, one byte at a time.
    console.write(b"a buffer goes out at once\n")?;
    for byte in b"bytes wait for the end of their line\na prompt has none, but is seen after " {
        console.put(*byte)?;
    }

    // The machine's monitor thread.
    let start = Instant::now();
    poll(&mut [PollFd::from_borrowed_fd(console.watch()?, PollFlags::IN)], None)?;
    std::thread::sleep(Console::GRACE);
    while !console.flush()? {
        std::thread::sleep(Duration::from_millis(1));
    }
    console.write(format!("{} ms> \n", start.elapsed().as_millis()).as_bytes())?;
    Ok(())
}
