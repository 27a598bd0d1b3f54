//! The device with its thread, and a driver in guest memory.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nerite_memory::GuestRam;
use nerite_virtio::fake::{Driver, FakeQueue, RAM, Rings, WRITE, function, ram, wait};
use nerite_virtio::{Event, VirtioPci, feature, status};
use nerite_virtio_console::{Console, INPUT};

const DATA: u64 = RAM + 0x10000;

struct Bench {
    ram: Arc<GuestRam>,
    function: Arc<VirtioPci<Console>>,
    driver: Driver,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Bench {
    fn new() -> Self {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = written.clone();
        let output = move |bytes: &[u8]| {
            sink.lock().unwrap().extend_from_slice(bytes);
            Ok(())
        };
        Self::with(Box::new(output), written)
    }

    fn with(output: nerite_virtio_console::Output, written: Arc<Mutex<Vec<u8>>>) -> Self {
        let ram = ram(1 << 20);
        let function = function(Console::new().unwrap(), &ram);
        function
            .device()
            .run(function.notifier(), function.kicks(), Box::new(|| Ok(())), output)
            .unwrap();
        Self { ram, driver: Driver::new(function.clone()), function, written }
    }

    /// Receive and transmit queues.
    fn start(&self) -> [FakeQueue; 2] {
        self.start_with(&[0, 1])
    }

    /// Both queues, of which these are enabled.
    fn start_with(&self, enabled: &[u16]) -> [FakeQueue; 2] {
        self.driver.negotiate(u64::MAX);
        self.ram.zero(RAM, 0x4000).unwrap();
        let rings = [0, 1].map(|index: u16| Rings::at(RAM + 0x2000 * u64::from(index), 16));
        enabled.iter().for_each(|index| self.driver.set_queue(*index, &rings[usize::from(*index)]));
        self.driver.ready();
        rings.map(|rings| FakeQueue::new(self.ram.clone(), rings))
    }

    /// The guest writes something: it is ready for input.
    fn speak(&self, transmit: &mut FakeQueue) {
        transmit.add(&[(DATA, 1, 0)]);
        self.driver.kick(1);
        wait(|| transmit.take_used());
    }

    fn needs_reset(&self) -> bool {
        self.driver.status() & status::DEVICE_NEEDS_RESET != 0
    }
}

#[test]
fn output_comes_out_in_order_and_whole() {
    let bench = Bench::new();
    let [_, mut transmit] = bench.start();
    let text: Vec<u8> = (0..10_000).map(|n| (n % 251) as u8).collect();
    bench.ram.write(DATA, &text).unwrap();
    for (address, length) in [(DATA, 1), (DATA + 1, 4096), (DATA + 4097, 5903)] {
        transmit.add(&[(address, length, 0)]);
        bench.driver.kick(1);
        assert_eq!(wait(|| transmit.take_used()).1, 0);
    }
    assert!(*bench.written.lock().unwrap() == text);
}

#[test]
fn input_waits_for_the_guest_and_is_limited() {
    let bench = Bench::new();
    let device = bench.function.device();
    let typed: Vec<u8> = (0..INPUT + 100).map(|n| (n % 251) as u8).collect();
    assert_eq!(device.enqueue(&typed), INPUT);
    assert_eq!(device.enqueue(b"x"), 0);
    let [mut receive, mut transmit] = bench.start();
    receive.add(&[(DATA, 1000, WRITE), (DATA + 1000, 500, WRITE)]);
    bench.driver.kick(0);
    std::thread::sleep(Duration::from_millis(5));
    assert!(receive.take_used().is_none(), "a driver that has written nothing is not ready");
    bench.speak(&mut transmit);
    let mut got = Vec::new();
    while got.len() < INPUT {
        let length = wait(|| receive.take_used()).1 as usize;
        let mut bytes = vec![0; length];
        bench.ram.read(DATA, &mut bytes).unwrap();
        got.extend(bytes);
        receive.add(&[(DATA, 1000, WRITE), (DATA + 1000, 500, WRITE)]);
        bench.driver.kick(0);
    }
    assert!(got == typed[..INPUT]);
    let event = |fd| rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN);
    assert_eq!(rustix::event::poll(&mut [event(device.room())], None).unwrap(), 1);
    device.acknowledge();
    assert_eq!(device.enqueue(b"x"), 1);
}

#[test]
fn a_buffer_without_room_takes_no_input_away() {
    let bench = Bench::new();
    let [mut receive, mut transmit] = bench.start();
    bench.speak(&mut transmit);
    bench.function.device().enqueue(b"abc");
    for (buffer, length) in
        [((DATA, 0, WRITE), 0), ((DATA, 2, 0), 0), ((DATA, 2, WRITE), 2), ((DATA, 2, WRITE), 1)]
    {
        receive.add(&[buffer]);
        bench.driver.kick(0);
        assert_eq!(wait(|| receive.take_used()).1, length);
    }
    assert_eq!(bench.ram.read_obj::<u8>(DATA).unwrap(), b'c');
}

#[test]
fn an_output_that_fails_does_not_hold_the_guest() {
    let bench = Bench::with(Box::new(|_| Err(io::ErrorKind::BrokenPipe.into())), Arc::default());
    let [_, mut transmit] = bench.start();
    for _ in 0..3 {
        transmit.add(&[(DATA, 10, 0)]);
        bench.driver.kick(1);
        wait(|| transmit.take_used());
    }
    assert!(!bench.needs_reset());
}

#[test]
fn an_output_that_waits_holds_neither_input_nor_a_vcpu() {
    let (gate, opened) = (Arc::new(Event::new().unwrap()), Arc::new(Event::new().unwrap()));
    let (waits, is_open) = (gate.clone(), opened.clone());
    let output = move |_: &[u8]| {
        waits.signal();
        while !is_open.is_signalled() {
            std::thread::yield_now();
        }
        Ok(())
    };
    let bench = Bench::with(Box::new(output), Arc::default());
    let [_, mut transmit] = bench.start();
    transmit.add(&[(DATA, 10, 0)]);
    bench.driver.kick(1);
    wait(|| gate.take().then_some(()));
    // A notification returns at once.
    bench.driver.kick(1);
    assert_eq!(bench.function.device().enqueue(b"typed"), 5);
    assert!(transmit.take_used().is_none());
    opened.signal();
    wait(|| transmit.take_used());
}

#[test]
fn mistakes_of_the_driver_need_a_reset() {
    let bench = Bench::new();
    for (queue, flags) in [(0, WRITE), (1, 0)] {
        let mut queues = bench.start();
        bench.speak(&mut queues[1]);
        bench.function.device().enqueue(b"a");
        queues[queue].add(&[(0xdead_0000, 10, flags)]);
        bench.driver.kick(queue as u16);
        wait(|| bench.needs_reset().then_some(()));
    }
    let [_, mut transmit] = bench.start();
    transmit.add(&[(DATA, 10, 0)]);
    bench.driver.kick(1);
    wait(|| transmit.take_used());
}

#[test]
fn a_console_works_with_the_queues_that_are_enabled() {
    let bench = Bench::new();
    bench.ram.write(DATA, b"printed").unwrap();
    let [_, mut transmit] = bench.start_with(&[1]);
    transmit.add(&[(DATA, 7, 0)]);
    bench.driver.kick(1);
    wait(|| transmit.take_used());
    assert_eq!(*bench.written.lock().unwrap(), b"printed");
    assert!(!bench.needs_reset());
    // A driver that cannot write gets its input at once.
    let [mut receive, _] = bench.start_with(&[0]);
    bench.function.device().enqueue(b"typed");
    receive.add(&[(DATA, 100, WRITE)]);
    bench.driver.kick(0);
    assert_eq!(wait(|| receive.take_used()).1, 5);
    let _ = bench.start_with(&[]);
    assert!(!bench.needs_reset());
}

#[test]
fn a_reset_does_not_wait_for_output() {
    let (gate, opened) = (Arc::new(Event::new().unwrap()), Arc::new(Event::new().unwrap()));
    let (waits, is_open) = (gate.clone(), opened.clone());
    let output = move |_: &[u8]| {
        waits.signal();
        while !is_open.is_signalled() {
            std::thread::yield_now();
        }
        Ok(())
    };
    let bench = Bench::with(Box::new(output), Arc::default());
    let [_, mut transmit] = bench.start();
    transmit.add(&[(DATA, 10, 0)]);
    bench.driver.kick(1);
    wait(|| gate.take().then_some(()));
    bench.driver.set_status(0);
    assert_eq!(bench.driver.status(), 0, "at once");
    // The next driver's output waits its turn, and its rings know nothing of the one before.
    let [_, mut transmit] = bench.start();
    opened.signal();
    let head = transmit.add(&[(DATA, 10, 0)]);
    bench.driver.kick(1);
    assert_eq!(wait(|| transmit.take_used()), (head.into(), 0));
    assert_eq!(transmit.take_used(), None);
}

#[test]
fn a_console_that_is_no_bus_master_waits() {
    let bench = Bench::new();
    let [mut receive, mut transmit] = bench.start();
    bench.speak(&mut transmit);
    bench.driver.set_bus_master(false);
    bench.ram.write(DATA, b"abc").unwrap();
    receive.add(&[(DATA + 100, 100, WRITE)]);
    transmit.add(&[(DATA, 3, 0)]);
    bench.function.device().enqueue(b"typed");
    bench.driver.kick(1);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!((receive.take_used(), transmit.take_used()), (None, None));
    bench.driver.set_bus_master(true);
    assert_eq!(wait(|| receive.take_used()).1, 5);
    wait(|| transmit.take_used());
}

#[test]
fn no_features_are_offered_but_the_transports() {
    let bench = Bench::new();
    let transport = feature::VERSION_1 | feature::INDIRECT_DESC | feature::EVENT_IDX;
    assert_eq!(bench.driver.offered(), transport);
}
