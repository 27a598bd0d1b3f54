//! The device with its thread, and a driver in guest memory.

#![cfg(test)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use nerite_memory::GuestRam;
use nerite_virtio::fake::{Buffer, Driver, FakeQueue, RAM, Rings, WRITE, function, ram, wait};
use nerite_virtio::{VirtioPci, feature, status};
use nerite_virtio_rng::Rng;

const DATA: u64 = RAM + 0x4000;

struct Bench {
    ram: Arc<GuestRam>,
    _function: Arc<VirtioPci<Rng>>,
    driver: Driver,
    queue: FakeQueue,
}

impl Bench {
    fn new() -> Self {
        let ram = ram(1 << 20);
        let function = function(Rng::new().unwrap(), &ram);
        function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(()))).unwrap();
        let queue = FakeQueue::new(ram.clone(), Rings::at(RAM, 16));
        let mut bench =
            Self { ram, driver: Driver::new(function.clone()), _function: function, queue };
        bench.start();
        bench
    }

    fn start(&mut self) {
        self.driver.negotiate(u64::MAX);
        self.ram.zero(RAM, 0x1000).unwrap();
        self.driver.set_queue(0, &Rings::at(RAM, 16));
        self.driver.ready();
        self.queue = FakeQueue::new(self.ram.clone(), Rings::at(RAM, 16));
    }

    fn ask(&mut self, buffers: &[Buffer]) -> u32 {
        self.queue.add(buffers);
        self.driver.kick(0);
        wait(|| self.queue.take_used()).1
    }
}

#[test]
fn bytes_fill_all_the_room_and_differ() {
    let mut bench = Bench::new();
    assert_eq!(bench.ask(&[(DATA, 20, WRITE), (DATA + 0x100, 44, WRITE)]), 64);
    let mut first = [0_u8; 64];
    bench.ram.read(DATA, &mut first[..20]).unwrap();
    bench.ram.read(DATA + 0x100, &mut first[20..]).unwrap();
    assert!(first[..20] != [0; 20] && first[20..] != [0; 44]);
    assert_eq!(
        bench.ram.read_obj::<[u8; 16]>(DATA + 20).unwrap(),
        [0; 16],
        "and no more than that"
    );
    bench.ask(&[(DATA, 64, WRITE)]);
    assert_ne!(bench.ram.read_obj::<[u8; 64]>(DATA).unwrap(), first);
}

#[test]
fn much_room_is_filled_in_part_and_none_not_at_all() {
    let mut bench = Bench::new();
    assert_eq!(bench.ask(&[(DATA, 0x8000, WRITE), (DATA, 0x8000, WRITE)]), 4096);
    // The wrong direction, and nothing.
    assert_eq!(bench.ask(&[(DATA, 64, 0)]), 0);
    assert_eq!(bench.ask(&[(DATA, 0, WRITE)]), 0);
}

#[test]
fn memory_that_is_not_there_needs_a_reset() {
    let mut bench = Bench::new();
    bench.queue.add(&[(0xdead_0000, 64, WRITE)]);
    bench.driver.kick(0);
    let began = Instant::now();
    while bench.driver.status() & status::DEVICE_NEEDS_RESET == 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "the device keeps working");
    }
    bench.start();
    assert_eq!(bench.ask(&[(DATA, 64, WRITE)]), 64);
}

#[test]
fn a_device_that_is_no_bus_master_waits() {
    let mut bench = Bench::new();
    bench.driver.set_bus_master(false);
    bench.queue.add(&[(DATA, 64, WRITE)]);
    bench.driver.kick(0);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(bench.queue.take_used(), None);
    assert_eq!(bench.ram.read_obj::<[u8; 16]>(DATA).unwrap(), [0; 16]);
    bench.driver.set_bus_master(true);
    let began = Instant::now();
    while bench.queue.take_used().is_none() {
        assert!(began.elapsed() < Duration::from_secs(10), "nothing has come");
    }
}

#[test]
fn no_features_are_offered_but_the_transports() {
    let bench = Bench::new();
    let transport = feature::VERSION_1 | feature::INDIRECT_DESC | feature::EVENT_IDX;
    assert_eq!(bench.driver.offered(), transport);
}
