//! Prints the frames that the host sends into a tap: `cargo run -p nerite-net --example tap NAME
//! [COUNT]`. It needs the right to make or use the tap.

#![allow(clippy::print_stdout)]

use std::io::ErrorKind;
use std::time::Duration;

use nerite_memory::{Backing, GuestRam, Region};
use nerite_net::{Spec, open};
use nerite_virtio::Segment;
use nerite_virtio_net::{HEADER, Side};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let Some(name) = words.next() else {
        println!("usage: tap NAME [COUNT]");
        return Ok(());
    };
    let count: u32 = words.next().map_or(Ok(10), |count| count.parse())?;
    let connection = open(&format!("tap={name}").parse::<Spec>()?)?;
    println!("card {}, MTU {:?}", connection.config.mac, connection.config.mtu);
    let Side::Backends(mut backends) = connection.side else { return Err("not a backend".into()) };
    let tap = backends.first_mut().ok_or("no queue")?;
    let ram = GuestRam::new(&[Region { start: 0x10_0000, size: 0x10_0000 }], &Backing::default())?;
    let room = [Segment { address: 0x10_0000, length: 70_000 }];
    let mut seen = 0;
    while seen < count {
        match tap.receive(&ram, &room, &mut [0; 16]) {
            Ok(length) => {
                let mut start = [0; HEADER + 14];
                ram.read(0x10_0000, &mut start)?;
                println!("{} bytes, to and from {:02x?}", length - HEADER, &start[HEADER..]);
                seen += 1;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(10))
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
