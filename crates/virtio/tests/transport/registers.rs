//! Registers as a driver reads them, and the device's interrupts.

use nerite_pci::Function as _;
use nerite_virtio::fake::{RAM, Rings};
use nerite_virtio::{NO_VECTOR, common_cfg, feature, region, status};

use crate::{Machine, machine};

fn is_signalled(machine: &Machine) -> bool {
    let notifier = machine.function.notifier();
    let events = [0, 1].iter().filter_map(|index| notifier.queue_event(*index));
    notifier.pin().is_signalled() || events.into_iter().any(nerite_virtio::Event::is_signalled)
}

#[test]
fn the_configuration_is_read_before_any_handshake() {
    let machine = machine();
    assert_eq!(machine.driver.status(), 0);
    assert_eq!(machine.driver.read(region::DEVICE, 4), 0x0403_0201);
    machine.driver.set_status(status::ACKNOWLEDGE);
    assert_eq!(machine.driver.read(region::DEVICE + 4, 2), 0x0605);
}

#[test]
fn features_are_those_of_device_and_transport() {
    let machine = machine();
    assert_eq!(
        machine.driver.offered(),
        feature::VERSION_1 | feature::INDIRECT_DESC | feature::EVENT_IDX | 3
    );
}

#[test]
fn a_change_sets_isr_status_also_with_messages() {
    let machine = machine();
    machine.start();
    machine.driver.set_msix(true);
    machine.driver.write(common_cfg::CONFIG_MSIX_VECTOR, 2, 0);
    machine.function.notifier().config_changed();
    assert!(!machine.function.notifier().pin().is_signalled());
    // The status register says what the pin would, and there is none now.
    assert_eq!(machine.function.read_config(4, 4) & 1 << 19, 0);
    assert_eq!(machine.driver.isr(), 2);
    // One that is not read by the time that messages are turned off raises the pin.
    machine.function.notifier().config_changed();
    machine.driver.set_msix(false);
    assert!(machine.function.notifier().pin().is_signalled());
}

#[test]
fn an_event_without_a_vector_interrupts_nothing() {
    let machine = machine();
    machine.driver.set_msix(true);
    machine.driver.negotiate(0);
    machine.driver.set_queue(0, &Rings::at(RAM, 16));
    machine.driver.write(common_cfg::QUEUE_MSIX_VECTOR, 2, NO_VECTOR.into());
    machine.driver.ready();
    let notifier = machine.function.notifier();
    assert!(!notifier.queue(0));
    notifier.config_changed();
    notifier.fail();
    assert!(!is_signalled(&machine));
    machine.driver.set_message(0, 0xfee0_0000, 1);
    machine.driver.set_message(1, 0xfee0_0000, 2);
    assert_eq!(machine.driver.read(region::MSIX_PENDING, 8), 0, "nor is one pending");
}

#[test]
fn every_event_has_any_vector_and_none_after_a_reset() {
    let machine = machine();
    let driver = &machine.driver;
    driver.set_msix(true);
    driver.negotiate(0);
    for vector in [0, 1, 2, NO_VECTOR] {
        driver.write(common_cfg::CONFIG_MSIX_VECTOR, 2, vector.into());
        assert_eq!(driver.read(common_cfg::CONFIG_MSIX_VECTOR, 2), u64::from(vector));
        for queue in [0, 1] {
            driver.write(common_cfg::QUEUE_SELECT, 2, queue);
            driver.write(common_cfg::QUEUE_MSIX_VECTOR, 2, vector.into());
            assert_eq!(driver.read(common_cfg::QUEUE_MSIX_VECTOR, 2), u64::from(vector));
            let event = machine.function.notifier().queue_event(queue as u16);
            assert_eq!(event.is_some(), vector != NO_VECTOR);
        }
    }
    driver.write(common_cfg::CONFIG_MSIX_VECTOR, 2, 1);
    driver.write(common_cfg::QUEUE_MSIX_VECTOR, 2, 1);
    driver.reset();
    assert_eq!(driver.read(common_cfg::CONFIG_MSIX_VECTOR, 2), u64::from(NO_VECTOR));
    for queue in [0, 1] {
        driver.write(common_cfg::QUEUE_SELECT, 2, queue);
        assert_eq!(driver.read(common_cfg::QUEUE_MSIX_VECTOR, 2), u64::from(NO_VECTOR));
        assert_eq!(driver.read(common_cfg::QUEUE_ENABLE, 2), 0);
        assert!(driver.read(common_cfg::QUEUE_SIZE, 2).is_power_of_two());
        assert!(machine.function.notifier().queue_event(queue as u16).is_none());
    }
}

#[test]
fn notifications_for_nothing_do_nothing() {
    let machine = machine();
    let mut queue = machine.start();
    for _ in 0..10 {
        machine.driver.kick(0);
        machine.function.device().serve();
    }
    assert_eq!(queue.take_used(), None);
    machine.echo(&mut queue);
    assert_eq!(machine.driver.status() & status::DEVICE_NEEDS_RESET, 0);
}
