//! A whole card with its thread, a driver in guest memory, and a socket as the network.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use nerite_memory::GuestRam;
use nerite_virtio::fake::{Driver, FakeQueue, RAM, Rings, WRITE, function, ram, wait};
use nerite_virtio::{Segment, VirtioPci, feature as transport, region, status};
use nerite_virtio_net::{Backend, HEADER, Mac, Net, NetConfig, Side, feature, write_across};

mod engine;
mod link;
mod pairs;
mod state;

const FRAMES: u64 = RAM + 0x40000;
const SIZE: u16 = 16;

/// Frames are datagrams, with virtio header.
struct Datagrams(UnixDatagram);

impl Backend for Datagrams {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn send(&mut self, ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        let mut frame = Vec::new();
        for piece in pieces {
            let at = frame.len();
            frame.resize(at + piece.length as usize, 0);
            ram.read(piece.address, &mut frame[at..]).unwrap();
        }
        self.0.send(&frame).map(drop)
    }

    fn receive(&mut self, ram: &GuestRam, room: &[Segment], _: &mut [u8]) -> io::Result<usize> {
        let mut frame = [0; 2000];
        let length = self.0.recv(&mut frame)?;
        write_across(ram, room, 0, &frame[..length]).unwrap();
        Ok(length)
    }
}

struct Bench {
    ram: Arc<GuestRam>,
    function: Arc<VirtioPci<Net>>,
    driver: Driver,
    wires: Vec<UnixDatagram>,
}

fn bench(pairs: u16) -> Bench {
    let (mut wires, mut backends) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        wires.push(ours);
        backends.push(Box::new(Datagrams(theirs)) as Box<dyn Backend>);
    }
    bench_with(pairs, Side::Backends(backends), wires)
}

fn bench_with(pairs: u16, side: Side, wires: Vec<UnixDatagram>) -> Bench {
    let config = NetConfig { mac: Mac([2, 0, 0, 0, 0, 1]), mtu: Some(1500), pairs, offloads: 0 };
    let ram = ram(1 << 20);
    let function = function(Net::new(config, side).unwrap(), &ram);
    function.device().run(function.notifier(), function.kicks()).unwrap();
    Bench { ram, driver: Driver::new(function.clone()), function, wires }
}

impl Bench {
    /// Sets up this many queues.
    fn start(&self, features: u64, queues: u16) -> Vec<FakeQueue> {
        self.start_with(features, &(0..queues).collect::<Vec<_>>())
    }

    /// Five queues, of which these are enabled.
    fn start_with(&self, features: u64, enabled: &[u16]) -> Vec<FakeQueue> {
        self.driver.negotiate(features);
        let rings = |index: u16| Rings::at(RAM + 0x2000 * u64::from(index), SIZE);
        self.ram.zero(RAM, 0x2000 * 5).unwrap();
        enabled.iter().for_each(|index| self.driver.set_queue(*index, &rings(*index)));
        self.driver.ready();
        (0..5).map(|index| FakeQueue::new(self.ram.clone(), rings(index))).collect()
    }

    /// A frame out and one in.
    fn exchange(&self, queues: &mut [FakeQueue], pair: usize) {
        self.send(&mut queues[2 * pair + 1], pair);
        self.receive(&mut queues[2 * pair], pair);
    }

    /// A frame out.
    fn send(&self, queue: &mut FakeQueue, pair: usize) {
        let frame: Vec<u8> = [&[0; HEADER][..], b"to the network"].concat();
        self.ram.write(FRAMES, &frame).unwrap();
        let head = queue.add(&[(FRAMES, frame.len() as u32, 0)]);
        self.driver.kick(2 * pair as u16 + 1);
        let mut got = [0; 100];
        let length = self.wires[pair].recv(&mut got).unwrap();
        assert_eq!(got[..length], frame);
        assert_eq!(wait(|| queue.take_used()), (head.into(), 0));
    }

    /// A frame in.
    fn receive(&self, queue: &mut FakeQueue, pair: usize) {
        let head = queue.add(&[(FRAMES + 4096, 1600, WRITE)]);
        self.driver.kick(2 * pair as u16);
        self.wires[pair].send(&[&[0; HEADER][..], b"from the network"].concat()).unwrap();
        assert_eq!(wait(|| queue.take_used()), (head.into(), 28));
        let mut text = [0; 16];
        self.ram.read(FRAMES + 4096 + 12, &mut text).unwrap();
        assert_eq!(&text, b"from the network");
    }
}

#[test]
fn frames_go_both_ways_and_interrupt() {
    let bench = bench(1);
    let mut queues = bench.start(0, 3);
    bench.exchange(&mut queues, 0);
    assert!(wait(|| bench.function.notifier().pin().take().then_some(true)));
    let totals: Vec<_> = bench.function.device().counters().queues().collect();
    assert_eq!((totals[0].packets, totals[0].bytes), (1, 16));
    assert_eq!((totals[1].packets, totals[1].bytes, totals[1].drops), (1, 14, 0));
    // The frame may have been found without it.
    let kicks =
        || bench.function.device().counters().queues().nth(1).map_or(0, |queue| queue.kicks);
    wait(|| (kicks() >= 1).then_some(()));
    let text = bench.function.device().counters().to_string();
    assert!(text.contains("queue 1 (transmit): 1 packets, 14 bytes"), "{text}");
}

#[test]
fn features_are_those_that_are_implemented() {
    let bench = bench(2);
    let own = feature::MAC | feature::STATUS | feature::MRG_RXBUF | feature::CTRL_VQ;
    let transport = transport::VERSION_1 | transport::INDIRECT_DESC | transport::EVENT_IDX;
    assert_eq!(bench.driver.offered(), own | feature::MTU | feature::MQ | transport);
}

#[test]
fn the_configuration_is_there() {
    let bench = bench(2);
    bench.start(u64::MAX, 5);
    assert_eq!(bench.driver.read(region::DEVICE, 4), 2);
    assert_eq!(bench.driver.read(region::DEVICE + 6, 2), 1, "the link is up");
    assert_eq!(bench.driver.read(region::DEVICE + 8, 2), 2, "pairs");
    assert_eq!(bench.driver.read(region::DEVICE + 10, 2), 1500);
    assert!(bench.function.device().set_link(false));
    bench.function.notifier().config_changed();
    assert_eq!(bench.driver.read(region::DEVICE + 6, 2), 0);
    assert_eq!(bench.driver.isr() & 2, 2);
    assert!(!bench.function.device().set_link(false));
}

#[test]
fn a_reset_at_any_moment_stops_the_queues_and_the_card_works_again() {
    let bench = bench(1);
    for turn in 0..20 {
        let mut queues = bench.start(if turn % 2 == 0 { 0 } else { transport::EVENT_IDX }, 2);
        bench.exchange(&mut queues, 0);
        // In the middle of traffic.
        for _ in 0..10 {
            queues[1].add(&[(FRAMES, 60, 0)]);
            bench.wires[0].send(&[0; 60]).unwrap();
        }
        bench.driver.kick(1);
        bench.driver.reset();
        let mut before = vec![0; 0x4000];
        bench.ram.read(RAM, &mut before).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        let mut after = vec![0; 0x4000];
        bench.ram.read(RAM, &mut after).unwrap();
        assert!(before == after, "no ring is touched after a reset");
        bench.wires[0].set_nonblocking(true).unwrap();
        while bench.wires[0].recv(&mut [0; 100]).is_ok() {}
        bench.wires[0].set_nonblocking(false).unwrap();
        // Frames that came before the reset are still the backend's.
        let mut queues = bench.start(0, 2);
        for n in 0..10 {
            queues[0].add(&[(FRAMES + 8192 + n * 2048, 1600, WRITE)]);
        }
        bench.driver.kick(0);
        std::thread::sleep(Duration::from_millis(1));
        while queues[0].take_used().is_some() {}
    }
}

#[test]
fn mistakes_of_the_driver_need_a_reset() {
    let bench = bench(1);
    for queue in [0, 1] {
        let mut queues = bench.start(0, 2);
        queues[queue].add(&[(0xdead_0000, 60, if queue == 0 { WRITE } else { 0 })]);
        bench.driver.kick(queue as u16);
        wait(|| (bench.driver.status() & status::DEVICE_NEEDS_RESET != 0).then_some(()));
        let mut queues = bench.start(0, 2);
        bench.exchange(&mut queues, 0);
    }
}

#[test]
fn a_card_works_with_the_queues_that_are_enabled() {
    let bench = bench(1);
    let needs_reset = || bench.driver.status() & status::DEVICE_NEEDS_RESET != 0;
    let mut queues = bench.start_with(0, &[1]);
    bench.send(&mut queues[1], 0);
    assert!(!needs_reset());
    let mut queues = bench.start_with(0, &[0]);
    bench.receive(&mut queues[0], 0);
    let _ = bench.start_with(0, &[]);
    assert!(!needs_reset());
    let mut queues = bench.start_with(feature::CTRL_VQ, &[2]);
    assert_eq!(pairs::command(&bench, &mut queues[2], 2, &[4, 0, 1, 0]), 0);
}

#[test]
fn a_card_that_is_no_bus_master_waits() {
    let bench = bench(1);
    let mut queues = bench.start(0, 2);
    bench.exchange(&mut queues, 0);
    bench.driver.set_bus_master(false);
    queues[0].add(&[(FRAMES + 4096, 1600, WRITE)]);
    queues[1].add(&[(FRAMES, 60, 0)]);
    (0..2).for_each(|queue| bench.driver.kick(queue));
    bench.wires[0].send(&[0; 60]).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!((queues[0].take_used(), queues[1].take_used()), (None, None));
    bench.driver.set_bus_master(true);
    wait(|| queues[0].take_used());
    wait(|| queues[1].take_used());
    assert_eq!(bench.wires[0].recv(&mut [0; 100]).unwrap(), 60);
}

#[test]
fn features_that_need_others_are_refused_without_them() {
    let bench = bench(2);
    bench.driver.reset();
    bench.driver.set_status(3);
    bench.driver.accept(transport::VERSION_1 | feature::MQ);
    bench.driver.set_status(11);
    assert_eq!(bench.driver.status(), 3);
}

#[test]
fn a_card_needs_a_backend_for_each_pair() {
    let config = NetConfig { mac: Mac([2, 0, 0, 0, 0, 1]), mtu: None, pairs: 2, offloads: 0 };
    assert!(Net::new(config, Side::Backends(Vec::new())).is_err());
    assert!(Net::new(NetConfig { pairs: 0, ..config }, Side::Backends(Vec::new())).is_err());
    for mtu in [0, 67] {
        let config = NetConfig { mtu: Some(mtu), pairs: 1, ..config };
        let (ours, _) = UnixDatagram::pair().unwrap();
        assert!(
            Net::new(config, Side::Backends(vec![Box::new(Datagrams(ours))])).is_err(),
            "{mtu}"
        );
    }
}
