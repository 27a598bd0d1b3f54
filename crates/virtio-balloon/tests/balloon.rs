//! The device with its thread, and a driver in guest memory.

#![cfg(test)]

use std::sync::Arc;
use std::time::Duration;

use nerite_memory::GuestRam;
use nerite_virtio::fake::{Driver, FakeQueue, RAM, Rings, function, ram, wait};
use nerite_virtio::{VirtioDevice as _, VirtioPci, feature, status};
use nerite_virtio_balloon::{Balloon, GuestStatistics, PAGE};

/// Bytes of RAM, behind the first MiB.
const SIZE: u64 = 4 << 20;
const DATA: u64 = RAM + 0x4000;
/// The first page that is given.
const GIVEN: u64 = RAM + 0x10_0000;
const PATIENCE: Duration = Duration::from_secs(300);

struct Bench {
    ram: Arc<GuestRam>,
    function: Arc<VirtioPci<Balloon>>,
    driver: Driver,
    queues: Vec<FakeQueue>,
}

impl Bench {
    fn new() -> Self {
        let ram = ram(SIZE);
        let function = function(Balloon::new().unwrap(), &ram);
        function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(()))).unwrap();
        let driver = Driver::new(function.clone());
        let mut bench = Self { ram, function, driver, queues: Vec::new() };
        bench.start();
        bench
    }

    fn start(&mut self) {
        self.driver.negotiate(u64::MAX);
        let rings = [0, 1, 2].map(|queue: u64| Rings::at(RAM + queue * 0x1000, 16));
        self.ram.zero(RAM, 0x3000).unwrap();
        for (queue, rings) in (0..).zip(&rings) {
            self.driver.set_queue(queue, rings);
        }
        self.driver.ready();
        let queues = rings.into_iter().map(|rings| FakeQueue::new(self.ram.clone(), rings));
        self.queues = queues.collect();
    }

    /// Hands numbers of pages over on a queue, in a buffer at [`DATA`], and waits for it.
    fn pass(&mut self, queue: u16, pages: &[u64]) {
        let numbers = pages.iter().map(|page| u32::try_from(page / PAGE).unwrap_or(u32::MAX));
        let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        self.ram.write(DATA, &bytes).unwrap();
        let at = usize::from(queue);
        self.queues[at].add(&[(DATA, u32::try_from(bytes.len()).unwrap(), 0)]);
        self.driver.kick(queue);
        assert_eq!(wait(|| self.queues[at].take_used()).1, 0);
    }

    fn byte(&self, address: u64) -> u8 {
        self.ram.read_obj(address).unwrap()
    }
}

#[test]
fn pages_that_are_given_go_back_to_the_host() {
    let mut bench = Bench::new();
    let pages: Vec<_> = (0..300).map(|page| GIVEN + page * PAGE).collect();
    bench.ram.write(GIVEN, &vec![7; 302 * 4096]).unwrap();
    let before = bench.ram.resident_bytes().unwrap();
    // More than fit a turn; the first ones backwards.
    let order: Vec<_> = pages[..100].iter().rev().chain(&pages[100..]).copied().collect();
    bench.pass(0, &order);
    // The numbers took a page or two.
    let after = bench.ram.resident_bytes().unwrap();
    assert!(after <= before - 290 * PAGE, "{before} bytes before, {after} after");
    assert_eq!((bench.byte(GIVEN), bench.byte(GIVEN + 299 * PAGE)), (0, 0));
    assert_eq!((bench.byte(GIVEN - 1), bench.byte(GIVEN + 300 * PAGE)), (0, 7));
    // They can be had again.
    bench.pass(1, &pages[..10]);
    bench.ram.write(GIVEN, &[9; 4096]).unwrap();
    let totals = bench.function.device().totals();
    assert_eq!((totals.given, totals.refused, totals.taken_back), (300, 0, 10));
}

#[test]
fn pages_that_are_no_ram_are_not_given() {
    let mut bench = Bench::new();
    bench.ram.write(GIVEN, &[7; 4096]).unwrap();
    let nowhere = [0, RAM - PAGE, RAM + SIZE, u64::from(u32::MAX) * PAGE, u64::MAX];
    bench.pass(0, &nowhere);
    // Some of a run are RAM: none of it is taken.
    bench.pass(0, &[RAM + SIZE - PAGE, RAM + SIZE]);
    let totals = bench.function.device().totals();
    assert_eq!((totals.given, totals.refused), (7, 7));
    assert_eq!(bench.byte(GIVEN), 7);
    assert_eq!(bench.driver.status() & status::DEVICE_NEEDS_RESET, 0);
    bench.pass(0, &[GIVEN]);
    assert_eq!(bench.byte(GIVEN), 0);
}

#[test]
fn buffers_that_make_no_sense_come_back() {
    let mut bench = Bench::new();
    for (length, flags) in [(0, 0), (3, 0), (7, 0), (4, nerite_virtio::fake::WRITE)] {
        for queue in [0, 1] {
            bench.queues[queue].add(&[(DATA, length, flags)]);
            bench.driver.kick(u16::try_from(queue).unwrap());
            assert_eq!(wait(|| bench.queues[queue].take_used()).1, 0);
        }
    }
    let totals = bench.function.device().totals();
    assert_eq!((totals.given, totals.taken_back), (1, 1), "a number of seven bytes is one");
}

#[test]
fn target_and_actual_are_in_the_configuration() {
    let bench = Bench::new();
    let balloon = bench.function.device();
    assert!(balloon.set_target(0x1234) && !balloon.set_target(0x1234));
    assert_eq!((balloon.read_config(0, 4), balloon.read_config(4, 4)), (0x1234, 0));
    balloon.write_config(4, 4, 0x1200);
    for (offset, width) in [(0, 4), (4, 1), (5, 4), (8, 4), (u64::MAX, 8)] {
        balloon.write_config(offset, width, 1);
    }
    assert_eq!((balloon.target(), balloon.actual()), (0x1234, 0x1200));
    balloon.stop();
    assert_eq!((balloon.target(), balloon.actual()), (0x1234, 0), "a reset lets go of all");
}

#[test]
fn statistics_come_when_they_are_asked_for() {
    let mut bench = Bench::new();
    let report = |bench: &mut Bench, free: u64| {
        let entry: Vec<u8> =
            [4, 0].into_iter().chain(free.to_le_bytes()).chain([99, 0]).chain([1; 8]).collect();
        bench.ram.write(DATA, &entry).unwrap();
        bench.queues[2].add(&[(DATA, 20, 0)]);
        bench.driver.kick(2);
    };
    assert_eq!(bench.function.device().statistics(Duration::ZERO), None);
    report(&mut bench, 11);
    // The driver gets its buffer back, fills it anew, and that is the answer. The first question,
    // which was not waited for, may be answered as well.
    let function = bench.function.clone();
    let asked = std::thread::spawn(move || function.device().statistics(PATIENCE));
    while !asked.is_finished() {
        if bench.queues[2].take_used().is_some() {
            report(&mut bench, 22);
        }
        std::thread::yield_now();
    }
    let statistics = asked.join().unwrap().unwrap();
    assert!(statistics.free == Some(11) || statistics.free == Some(22), "{statistics:?}");
    let expected = GuestStatistics { free: statistics.free, ..GuestStatistics::default() };
    assert_eq!(statistics, expected);
}

#[test]
fn memory_that_is_not_there_needs_a_reset() {
    for queue in 0..3 {
        let mut bench = Bench::new();
        bench.queues[usize::from(queue)].add(&[(0xdead_0000, 64, 0)]);
        bench.driver.kick(queue);
        wait(|| (bench.driver.status() & status::DEVICE_NEEDS_RESET != 0).then_some(()));
        bench.start();
        bench.pass(0, &[GIVEN]);
    }
}

#[test]
fn a_balloon_that_is_no_bus_master_waits() {
    let mut bench = Bench::new();
    bench.driver.set_bus_master(false);
    bench.ram.write(DATA, &u32::try_from(GIVEN / PAGE).unwrap().to_le_bytes()).unwrap();
    bench.ram.write(GIVEN, &[7]).unwrap();
    bench.queues[0].add(&[(DATA, 4, 0)]);
    bench.driver.kick(0);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!((bench.queues[0].take_used(), bench.byte(GIVEN)), (None, 7));
    bench.driver.set_bus_master(true);
    wait(|| bench.queues[0].take_used());
    assert_eq!(bench.byte(GIVEN), 0);
}

#[test]
fn features_are_those_of_the_documentation() {
    let bench = Bench::new();
    let transport = feature::VERSION_1 | feature::INDIRECT_DESC | feature::EVENT_IDX;
    assert_eq!(bench.driver.offered(), transport | 1 << 1 | 1 << 2);
}
