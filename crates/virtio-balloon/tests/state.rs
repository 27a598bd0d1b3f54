//! A balloon that is restored as another device.

#![cfg(test)]

use std::sync::Arc;

use nerite_saved::testing::{Mutation, golden, mutated, through_json};
use nerite_virtio::fake::{Driver, FakeQueue, GuestRam, RAM, Rings, function, ram, wait};
use nerite_virtio::{VirtioDevice as _, VirtioPci};
use nerite_virtio_balloon::{Balloon, PAGE};
use proptest::prelude::*;

const DATA: u64 = RAM + 0x4000;
const GIVEN: u64 = RAM + 0x8000;

fn device(ram: &Arc<GuestRam>) -> Arc<VirtioPci<Balloon>> {
    let function = function(Balloon::new().unwrap(), ram);
    function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(()))).unwrap();
    function
}

fn started() -> (Arc<GuestRam>, Arc<VirtioPci<Balloon>>, Vec<FakeQueue>) {
    let ram = ram(1 << 20);
    let function = device(&ram);
    let driver = Driver::new(function.clone());
    driver.negotiate(u64::MAX);
    let rings = [0, 1, 2].map(|queue: u64| Rings::at(RAM + queue * 0x1000, 16));
    (0..).zip(&rings).for_each(|(queue, rings)| driver.set_queue(queue, rings));
    driver.ready();
    let queues = rings.into_iter().map(|rings| FakeQueue::new(ram.clone(), rings)).collect();
    ram.write(DATA, &u32::try_from(GIVEN / PAGE).unwrap().to_le_bytes()).unwrap();
    (ram, function, queues)
}

#[test]
fn every_buffer_comes_back_once_wherever_it_was() {
    let (ram, mut function, mut queues) = started();
    let (mut given, mut returned) = (0_u32, 0_u32);
    while returned < 500 {
        while given - returned < 8 {
            assert_eq!(u32::from(queues[0].add(&[(DATA, 4, 0)])), given % 16);
            given += 1;
        }
        Driver::new(function.clone()).kick(0);
        (0..given % 7).for_each(|_| std::thread::yield_now());
        function.pause();
        let saved = through_json(&function.save().unwrap());
        function = device(&ram);
        function.restore(&saved).unwrap();
        function.resume();
        wait(|| {
            while let Some((head, written)) = queues[0].take_used() {
                assert_eq!((head, written), (returned % 16, 0));
                returned += 1;
            }
            (returned + 4 >= given).then_some(())
        });
    }
}

#[test]
fn states_of_version_1_can_be_restored() {
    let (ram, function, mut queues) = started();
    let _ = function.device().set_target(77);
    function.device().write_config(4, 4, 66);
    queues[0].add(&[(DATA, 4, 0)]);
    Driver::new(function.clone()).kick(0);
    wait(|| queues[0].take_used());
    function.pause();
    let saved = golden("tests/state_v1.json", &function.save().unwrap());
    let function = device(&ram);
    function.restore(&saved).unwrap();
    assert_eq!(function.save().unwrap(), saved);
    assert_eq!((function.device().target(), function.device().actual()), (77, 66));
    function.resume();
    queues[0].add(&[(DATA, 4, 0)]);
    let driver = Driver::new(function);
    driver.kick(0);
    assert_eq!(wait(|| queues[0].take_used()), (1, 0));
}

proptest! {
    #[test]
    fn hostile_states_are_survived(mutations in prop::collection::vec(any::<Mutation>(), 1..6)) {
        let (ram, function, _) = started();
        function.pause();
        if let Some(saved) = mutated(&function.save().unwrap(), &mutations) {
            let function = device(&ram);
            if function.restore(&saved).is_ok() {
                function.resume();
                function.pause();
                function.save().unwrap();
            }
        }
    }
}
