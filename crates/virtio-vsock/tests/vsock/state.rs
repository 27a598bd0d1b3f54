//! A device that is saved, and restored as another.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nerite_saved::testing::{Mutation, golden, mutated, through_json};
use nerite_virtio::VirtioPci;
use nerite_virtio::fake::{RAM, WRITE, wait};
use nerite_virtio_vsock::{Limits, Vsock, VsockState, op};
use proptest::prelude::*;

use crate::guest::{CID, Guest, data, device, packet};
use crate::{client, connect, read_line};

const EVENT: u64 = RAM + 0xd_0000;

/// Another device in the state of this one.
fn moved(guest: &Guest, name: &str) -> Arc<VirtioPci<Vsock>> {
    guest.function.pause();
    guest.function.device().halt();
    let saved = through_json(&guest.function.save().unwrap());
    let function = device(&guest.path(name), &guest.ram, Limits::default());
    function.restore(&saved).unwrap();
    function
}

#[test]
fn a_restored_guest_hears_that_its_connections_are_gone() {
    let mut guest = Guest::new();
    guest.queues[2].add(&[(EVENT, 4, WRITE)]);
    guest.ram.write(EVENT, &[0xff; 4]).unwrap();
    let mut server = connect(&mut guest, 7);
    let (_client, request) = client(&mut guest);
    let function = moved(&guest, "other");
    assert_eq!(function.save().unwrap().device.next_port, request.src_port + 1);
    function.resume();
    guest.driver = nerite_virtio::fake::Driver::new(function);
    assert_eq!(wait(|| guest.queues[2].take_used()), (0, 4));
    assert_eq!(guest.ram.read_obj::<u32>(EVENT).unwrap(), 0);
    // The event comes once, and its identifier is there.
    guest.queues[2].add(&[(EVENT, 4, WRITE)]);
    guest.driver.kick(2);
    guest.expect_nothing();
    assert_eq!(guest.queues[2].take_used(), None);
    assert_eq!(guest.driver.read(nerite_virtio::region::DEVICE, 8), u64::from(CID));
    // What it sends on an old connection is refused; the first device still has that.
    guest.send(&data(1000, 7, b"x"), b"x");
    guest.expect(op::RST);
    server.write_all(b"not lost").unwrap();
    // A new connection has another port than any of before.
    let mut client = UnixStream::connect(guest.path("other")).unwrap();
    client.write_all(b"CONNECT 52\n").unwrap();
    assert_eq!(guest.expect(op::REQUEST).src_port, request.src_port + 1);
}

#[test]
fn an_event_waits_for_a_buffer() {
    let mut guest = Guest::new();
    let function = moved(&guest, "other");
    function.resume();
    guest.driver = nerite_virtio::fake::Driver::new(function);
    guest.expect_nothing();
    guest.queues[2].add(&[(EVENT, 8, WRITE)]);
    guest.driver.kick(2);
    assert_eq!(wait(|| guest.queues[2].take_used()), (0, 4));
}

#[test]
fn an_event_without_room_is_a_mistake() {
    let mut guest = Guest::new();
    let function = moved(&guest, "other");
    guest.queues[2].add(&[(EVENT, 3, WRITE)]);
    function.resume();
    guest.driver = nerite_virtio::fake::Driver::new(function);
    wait(|| guest.needs_reset().then_some(()));
}

#[test]
fn a_paused_device_touches_nothing_and_goes_on_with_its_connections() {
    let mut guest = Guest::new();
    let mut server = connect(&mut guest, 7);
    guest.function.pause();
    server.write_all(b"wait").unwrap();
    guest.try_send(&data(1000, 7, b"too"), b"too");
    guest.expect_nothing();
    assert_eq!(guest.queues[1].take_used(), None);
    guest.function.save().unwrap();
    guest.function.resume();
    assert_eq!(guest.receive().1, b"wait");
    let mut too = [0; 3];
    server.read_exact(&mut too).unwrap();
    assert_eq!(&too, b"too");
    wait(|| guest.queues[1].take_used());
}

#[test]
fn a_device_that_is_no_bus_master_waits() {
    let mut guest = Guest::new();
    guest.driver.set_bus_master(false);
    guest.try_send(&packet(op::RW, 1, 1), &[]);
    guest.expect_nothing();
    guest.driver.set_bus_master(true);
    guest.expect(op::RST);
}

/// A guest that has had a connection.
fn used() -> Guest {
    let mut guest = Guest::new();
    let (mut client, request) = client(&mut guest);
    guest.answer(&request, op::RESPONSE, 100);
    read_line(&mut client);
    guest.function.pause();
    guest
}

#[test]
fn states_of_version_1_can_be_restored() {
    let guest = used();
    let saved = golden("tests/state_v1.json", &guest.function.save().unwrap());
    let function = device(&guest.path("other"), &guest.ram, Limits::default());
    function.restore(&saved).unwrap();
    assert_eq!(function.save().unwrap(), saved);
}

#[test]
fn impossible_states_are_refused_by_name() {
    let guest = used();
    let mut saved = guest.function.save().unwrap();
    for next_port in [0, (1 << 30) - 1, u32::MAX] {
        saved.device = VsockState { version: 1, next_port };
        let error = guest.function.restore(&saved).unwrap_err().to_string();
        assert_eq!(error, "saved state of the vsock device: port is impossible");
    }
    saved.device.version = 0;
    assert!(guest.function.restore(&saved).unwrap_err().to_string().contains("version 0"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_states_are_survived(mutations in prop::collection::vec(any::<Mutation>(), 1..6)) {
        let guest = used();
        if let Some(saved) = mutated(&guest.function.save().unwrap(), &mutations) {
            let function = device(&guest.path("other"), &guest.ram, Limits::default());
            if function.restore(&saved).is_ok() {
                function.resume();
                function.pause();
                function.save().unwrap();
            }
        }
    }
}
