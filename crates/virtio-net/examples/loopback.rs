//! A card whose network sends every frame back: what a driver sends, it receives.

#![allow(clippy::print_stdout)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nerite_memory::GuestRam;
use nerite_pci::NotConnected;
use nerite_virtio::fake::{Driver, FakeQueue, RAM, Rings, WRITE, ram};
use nerite_virtio::{Event, NoDoorbells, Segment, VirtioPci, Wiring};
use nerite_virtio_net::{Backend, Mac, Net, NetConfig, Side, write_across};

struct Loopback {
    event: Event,
    frames: VecDeque<Vec<u8>>,
}

impl Backend for Loopback {
    fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn send(&mut self, ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        let mut frame = Vec::new();
        for piece in pieces {
            let mut bytes = vec![0; usize::try_from(piece.length).map_err(io::Error::other)?];
            ram.read(piece.address, &mut bytes).map_err(io::Error::other)?;
            frame.extend(bytes);
        }
        self.frames.push_back(frame);
        self.event.signal();
        Ok(())
    }

    fn receive(&mut self, ram: &GuestRam, room: &[Segment], _: &mut [u8]) -> io::Result<usize> {
        let Some(frame) = self.frames.pop_front() else {
            self.event.take();
            return Err(io::ErrorKind::WouldBlock.into());
        };
        write_across(ram, room, 0, &frame).map_err(io::Error::other)?;
        Ok(frame.len())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backend = Loopback { event: Event::new()?, frames: VecDeque::new() };
    let config =
        NetConfig { mac: Mac([0x52, 0x54, 0, 0, 0, 1]), mtu: Some(1500), pairs: 1, offloads: 0 };
    let card = Arc::new(Net::new(config, Side::Backends(vec![Box::new(backend)]))?);
    let ram = ram(1 << 20);
    let wiring = Wiring {
        ram: ram.clone(),
        doorbells: Arc::new(NoDoorbells),
        messages: Arc::new(NotConnected),
        address: 0xc000_0000,
        line: 11,
    };
    let function = Arc::new(VirtioPci::new(card, wiring)?);
    function.device().run(function.notifier(), function.kicks())?;

    let driver = Driver::new(function.clone());
    driver.negotiate(0);
    let rings = [Rings::at(RAM, 16), Rings::at(RAM + 0x2000, 16)];
    driver.set_queue(0, &rings[0]);
    driver.set_queue(1, &rings[1]);
    driver.ready();
    let mut queues = rings.map(|rings| FakeQueue::new(ram.clone(), rings));
    queues[0].add(&[(RAM + 0x8000, 2000, WRITE)]);
    ram.write(RAM + 0x9000 + 12, b"a frame")?;
    queues[1].add(&[(RAM + 0x9000, 19, 0)]);
    driver.kick(1);
    while queues[0].take_used().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut back = [0; 7];
    ram.read(RAM + 0x8000 + 12, &mut back)?;
    println!("received: {}", String::from_utf8_lossy(&back));
    function.device().halt();
    println!("{}", function.device().counters());
    Ok(())
}
