//! The whole transport with a device that copies what it reads to what it writes.

#![cfg(test)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers of tests are small, or are cut from random ones"
)]

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nerite_memory::GuestRam;
use nerite_pci::{Event, Function, Message, MessageRoutes, NotConnected};
use nerite_virtio::fake::{Driver, FakeQueue, RAM, Rings, WRITE, ram};
use nerite_virtio::{
    Activation, Chain, DeviceState, DoorbellError, Doorbells, Kind, NoDoorbells, Queue,
    RestoreError, StartError, VirtioDevice, VirtioPci, Wiring, common_cfg, config_bytes, feature,
    region, status,
};
use proptest::prelude::*;

mod capabilities;
mod echo;
mod life_cycle;
mod registers;
mod state;

use echo::Echo;

const BUFFERS: u64 = RAM + 0x10000;
const BAR: u64 = 0xc000_0000;

#[derive(Default)]
struct Recorder {
    doorbells: Mutex<Vec<(u64, i32)>>,
    messages: Mutex<Vec<(u16, Option<Message>)>>,
}

impl Doorbells for Recorder {
    fn attach(&self, address: u64, event: &Event) -> Result<(), DoorbellError> {
        self.doorbells.lock().unwrap().push((address, event.as_fd().as_raw_fd()));
        Ok(())
    }

    fn detach(&self, address: u64, event: &Event) {
        let mut doorbells = self.doorbells.lock().unwrap();
        let at = doorbells
            .iter()
            .position(|one| *one == (address, event.as_fd().as_raw_fd()))
            .expect("was attached");
        doorbells.remove(at);
    }
}

impl MessageRoutes for Recorder {
    fn connect(&self, vector: u16, _: &Event, message: Option<Message>) -> std::io::Result<()> {
        self.messages.lock().unwrap().push((vector, message));
        Ok(())
    }
}

struct Machine {
    ram: Arc<GuestRam>,
    function: Arc<VirtioPci<Echo>>,
    driver: Driver,
    recorder: Arc<Recorder>,
}

fn machine() -> Machine {
    let ram = ram(1 << 20);
    let recorder = Arc::new(Recorder::default());
    let wiring = Wiring {
        ram: ram.clone(),
        doorbells: recorder.clone(),
        messages: recorder.clone(),
        address: BAR,
        line: 11,
    };
    let function = Arc::new(VirtioPci::new(Arc::new(Echo::default()), wiring).unwrap());
    Machine { ram, driver: Driver::new(function.clone()), function, recorder }
}

impl Machine {
    fn start(&self) -> FakeQueue {
        self.driver.negotiate(0);
        let rings = Rings::at(RAM, 16);
        self.ram.zero(RAM, 0x2000).unwrap();
        self.driver.set_queue(0, &rings);
        self.driver.ready();
        FakeQueue::new(self.ram.clone(), rings)
    }

    fn echo(&self, queue: &mut FakeQueue) {
        self.ram.write(BUFFERS, b"hello").unwrap();
        self.ram.zero(BUFFERS + 64, 5).unwrap();
        let head = queue.add(&[(BUFFERS, 5, 0), (BUFFERS + 64, 8, WRITE)]);
        self.driver.kick(0);
        assert!(self.function.kicks()[0].is_signalled());
        assert!(self.function.device().serve());
        assert_eq!(queue.take_used(), Some((head.into(), 5)));
        let mut text = [0; 5];
        self.ram.read(BUFFERS + 64, &mut text).unwrap();
        assert_eq!(&text, b"hello");
    }
}

#[test]
fn a_driver_finds_it_and_gets_answers_by_pin() {
    let machine = machine();
    assert_eq!(machine.function.read_config(0, 4), 0x1041_1af4);
    let mut queue = machine.start();
    machine.echo(&mut queue);
    let notifier = machine.function.notifier();
    assert!(notifier.pin().take());
    assert_ne!(machine.function.read_config(4, 4) & 1 << 19, 0);
    // The guest ends the interrupt without having looked why: it comes again.
    notifier.resample();
    assert!(notifier.pin().take());
    assert_eq!(machine.driver.isr(), 1);
    assert_eq!(machine.driver.isr(), 0, "reading clears it");
    notifier.resample();
    assert!(!notifier.pin().is_signalled());
    // The pin turned off, and on again with something to tell.
    machine.function.write_config(4, 2, 0x406);
    machine.echo(&mut queue);
    assert!(!notifier.pin().is_signalled());
    machine.function.write_config(4, 2, 0x006);
    assert!(notifier.pin().is_signalled());
}

#[test]
fn a_pin_that_is_ignored_leaves_the_guest_time() {
    let machine = machine();
    let mut queue = machine.start();
    machine.echo(&mut queue);
    let notifier = machine.function.notifier();
    let start = Instant::now();
    for _ in 0..16 + 10 {
        assert!(notifier.pin().take());
        notifier.resample();
    }
    assert!(start.elapsed() >= Duration::from_millis(10));
    assert!(notifier.pin().take(), "it still comes");
    assert_eq!(machine.driver.isr(), 1);
    notifier.resample();
    assert!(!notifier.pin().is_signalled());
}

#[test]
fn with_msix_interrupts_are_messages_and_the_pin_is_silent() {
    let machine = machine();
    machine.driver.set_bus_master(true);
    machine.driver.set_msix(true);
    machine.driver.set_message(1, 0xfee0_0000, 0x40);
    assert_eq!(
        *machine.recorder.messages.lock().unwrap(),
        [(1, Some(Message { address: 0xfee0_0000, data: 0x40 }))]
    );
    let mut queue = machine.start();
    machine.echo(&mut queue);
    let notifier = machine.function.notifier();
    assert!(notifier.queue_event(0).unwrap().take());
    assert!(!notifier.pin().is_signalled());
    assert_eq!(machine.driver.isr(), 0);
    assert!(notifier.queue_event(1).is_none(), "no vector was chosen");
}

/// Writes both halves of base address 0.
fn place(function: &impl Function, address: u64) {
    function.write_config(0x10, 4, address as u32);
    function.write_config(0x14, 4, (address >> 32) as u32);
}

#[test]
fn doorbells_follow_the_base_address_while_the_driver_is_ready() {
    let machine = machine();
    let bells = || machine.recorder.doorbells.lock().unwrap().clone();
    let kick = machine.function.kicks()[0].as_fd().as_raw_fd();
    assert_eq!(bells(), []);
    machine.start();
    assert_eq!(bells(), [(BAR + region::NOTIFY, kick)], "of the queue that is enabled");
    machine.function.write_config(0x10, 4, 0xd000_0000);
    assert_eq!(bells(), [(0xd000_0000 + region::NOTIFY, kick)]);
    // As when a driver finds out the size.
    machine.function.write_config(4, 2, 4);
    assert_eq!(bells(), []);
    machine.function.write_config(4, 2, 6);
    assert_eq!(bells().len(), 1);
    // Where RAM or an interrupt controller is, there is no doorbell.
    for address in [0x10_0000, 0xfec0_0000, 0xffff_8000, BAR | 1 << 32] {
        place(&*machine.function, address);
        assert_eq!(bells(), []);
    }
    place(&*machine.function, BAR);
    assert_eq!(bells().len(), 1);
    machine.driver.reset();
    assert_eq!(bells(), []);
}

#[test]
fn a_device_works_again_after_a_reset_at_any_moment() {
    let machine = machine();
    machine.driver.set_status(0);
    for turn in 0..6 {
        let mut queue = machine.start();
        machine.echo(&mut queue);
        queue.add(&[(BUFFERS, 5, 0), (BUFFERS + 64, 8, WRITE)]);
        machine.driver.kick(0);
        if turn % 2 == 0 {
            machine.driver.reset();
            assert!(!machine.function.device().serve(), "a reset device touches no queue");
            assert_eq!(queue.take_used(), None);
            machine.driver.kick(0);
            assert!(!machine.function.kicks()[0].is_signalled(), "notified after a reset");
        }
    }
}

#[test]
fn notifications_before_the_driver_is_ready_and_of_no_queue_are_nothing() {
    let machine = machine();
    machine.driver.kick(0);
    machine.driver.negotiate(0);
    machine.driver.set_queue(0, &Rings::at(RAM, 16));
    machine.driver.kick(0);
    machine.driver.ready();
    machine.driver.kick(1);
    machine.driver.kick(900);
    assert!(machine.function.kicks().iter().all(|kick| !kick.is_signalled()));
    assert_eq!(machine.driver.status() & status::DEVICE_NEEDS_RESET, 0);
}

#[test]
fn a_mistake_needs_a_reset_and_is_forgotten_after_it() {
    let machine = machine();
    let mut queue = machine.start();
    queue.publish(77);
    machine.driver.kick(0);
    machine.function.device().serve();
    assert_ne!(machine.driver.status() & status::DEVICE_NEEDS_RESET, 0);
    assert_eq!(machine.driver.isr() & 2, 2, "the driver is notified");
    let mut queue = machine.start();
    machine.echo(&mut queue);

    // A queue outside of RAM, and one that is missing.
    for rings in [Some(Rings::at(0, 16)), Some(Rings { size: 5, ..Rings::at(RAM, 16) }), None] {
        machine.driver.negotiate(0);
        rings.iter().for_each(|rings| machine.driver.set_queue(0, rings));
        machine.driver.ready();
        assert_ne!(machine.driver.status() & status::DEVICE_NEEDS_RESET, 0);
        machine.driver.kick(0);
        assert!(!machine.function.device().serve());
    }
    let mut queue = machine.start();
    machine.echo(&mut queue);
}

#[test]
fn features_that_the_device_cannot_combine_are_refused() {
    let machine = machine();
    machine.driver.reset();
    machine.driver.set_status(3);
    machine.driver.accept(feature::VERSION_1 | 2);
    machine.driver.set_status(11);
    assert_eq!(machine.driver.status(), 3);
    machine.driver.accept(feature::VERSION_1 | 3);
    machine.driver.set_status(11);
    assert_eq!(machine.driver.status(), 11);
}

#[test]
fn a_change_of_configuration_is_announced() {
    let machine = machine();
    let notifier = machine.function.notifier();
    let generation = || machine.driver.read(common_cfg::CONFIG_GENERATION, 1);
    let before = generation();
    notifier.config_changed();
    assert_eq!(machine.driver.isr(), 0, "no driver is there to be notified");
    machine.start();
    // As many changes as a generation has values are a change all the same.
    for _ in 0..256 {
        notifier.config_changed();
    }
    assert_eq!(machine.driver.read(region::DEVICE, 1), 1);
    assert_eq!(generation(), before + 1);
    assert_eq!(machine.driver.isr(), 2);
    assert_eq!(machine.driver.read(region::DEVICE, 1), 1);
    assert_eq!(generation(), before + 1, "nothing has changed since");
    assert_eq!(machine.driver.read(region::DEVICE, 4), 0x0403_0201);
    assert_eq!(machine.driver.read(region::DEVICE + 4, 4), 0x0605);
    assert_eq!(machine.driver.read(region::DEVICE + 0xffc, 4), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any accesses at all, with the device's thread in between: no panic, and after a reset the
    /// device works.
    #[test]
    fn any_accesses_are_survived(
        accesses in prop::collection::vec(
            (0_u8..4, prop_oneof![0_u64..64, 0_u64..0x8000], prop::sample::select(vec![1_u8, 2, 4, 8]),
             prop_oneof![0_u64..16, Just(RAM), Just(RAM + 0x1000), any::<u64>()]), 0..80),
    ) {
        let ram = ram(1 << 20);
        let wiring = Wiring {
            ram: ram.clone(),
            doorbells: Arc::new(NoDoorbells),
            messages: Arc::new(NotConnected),
            address: BAR,
            line: 5,
        };
        let function = Arc::new(VirtioPci::new(Arc::new(Echo::default()), wiring).unwrap());
        for (what, offset, width, value) in accesses {
            match what {
                0 => drop(function.read_memory(BAR + offset, width)),
                1 => drop(function.write_memory(BAR + offset, width, value)),
                2 => function.write_config(offset as u8, width.min(4), value as u32),
                _ => drop(function.read_config(offset as u8, width.min(4))),
            }
            // Whatever it is handed by then, the echo is a device that unwraps.
            if function.device().running.lock().unwrap().is_some() {
                function.device().stop();
            }
        }
        place(&*function, BAR);
        function.write_config(4, 2, 6);
        let driver = Driver::new(function.clone());
        let recorder = Arc::new(Recorder::default());
        let machine = Machine { ram, function, driver, recorder };
        machine.driver.set_msix(false);
        let mut queue = machine.start();
        machine.echo(&mut queue);
    }
}
