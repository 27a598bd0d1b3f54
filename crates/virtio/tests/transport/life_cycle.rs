//! Resets and pauses, in the middle of things.

use std::sync::atomic::Ordering;

use nerite_pci::Message;
use nerite_virtio::fake::{RAM, Rings, WRITE};
use nerite_virtio::{common_cfg, region, status};

use crate::{BUFFERS, machine};

#[test]
fn a_reset_lasts_until_the_device_has_stopped() {
    let machine = machine();
    let mut queue = machine.start();
    machine.echo(&mut queue);
    let device = machine.function.device();
    device.is_busy.store(true, Ordering::Release);
    let before = machine.driver.status();
    machine.driver.set_status(0);
    assert_eq!(machine.driver.status(), before, "a reset that is not done is not said to be");
    assert!(machine.recorder.doorbells.lock().unwrap().is_empty());
    // A driver that does not wait changes nothing.
    machine.driver.set_status(status::ACKNOWLEDGE);
    machine.driver.set_queue(0, &Rings::at(RAM + 0x4000, 8));
    machine.driver.set_status(0);
    machine.driver.kick(0);
    assert!(!machine.function.kicks()[0].is_signalled());
    machine.function.notifier().config_changed();
    assert_eq!(machine.driver.isr() & 2, 0, "no notification of a device that is reset");
    assert_eq!(machine.driver.status(), before);
    assert_eq!(machine.driver.read(common_cfg::QUEUE_SIZE, 2), 16);
    device.is_busy.store(false, Ordering::Release);
    assert_eq!(machine.driver.status(), 0);
    let mut queue = machine.start();
    machine.echo(&mut queue);
}

#[test]
fn a_function_without_bus_mastering_does_nothing() {
    let machine = machine();
    let mut queue = machine.start();
    machine.driver.set_msix(true);
    machine.driver.set_message(0, 0xfee0_0000, 0x40);
    let messages = || std::mem::take(&mut *machine.recorder.messages.lock().unwrap());
    let message = Message { address: 0xfee0_0000, data: 0x40 };
    assert_eq!(messages(), [(0, Some(message))]);
    machine.driver.set_bus_master(false);
    assert_eq!(messages(), [(0, None)]);
    queue.add(&[(BUFFERS, 5, 0), (BUFFERS + 64, 8, WRITE)]);
    machine.driver.kick(0);
    assert!(!machine.function.device().serve());
    assert_eq!(queue.take_used(), None);
    assert_eq!(machine.driver.read(region::DEVICE, 1), 1, "registers answer all the same");
    machine.driver.set_bus_master(true);
    assert_eq!(messages(), [(0, Some(message))]);
    machine.function.device().serve();
    assert!(queue.take_used().is_some(), "the request has waited");
}

#[test]
fn a_device_that_starts_without_bus_mastering_waits_for_it() {
    let machine = machine();
    assert!(machine.function.device().is_paused.load(Ordering::Acquire), "as after power on");
    machine.driver.negotiate(0);
    machine.driver.set_bus_master(false);
    machine.ram.zero(RAM, 0x2000).unwrap();
    let rings = Rings::at(RAM, 16);
    machine.driver.set_queue(0, &rings);
    machine.driver.ready();
    assert!(machine.function.device().is_paused.load(Ordering::Acquire));
    machine.driver.set_bus_master(true);
    let mut queue = nerite_virtio::fake::FakeQueue::new(machine.ram.clone(), rings);
    machine.echo(&mut queue);
}

#[test]
fn a_driver_that_is_never_right_does_not_flood_the_log() {
    let machine = machine();
    for _ in 0..500 {
        machine.driver.negotiate(0);
        machine.driver.set_queue(0, &Rings::at(0, 16));
        machine.driver.ready();
        assert_ne!(machine.driver.status() & status::DEVICE_NEEDS_RESET, 0);
    }
    assert!(machine.function.log().dropped() >= 450, "{}", machine.function.log().dropped());
}
