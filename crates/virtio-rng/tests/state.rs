//! A source of random numbers that is restored as another device.

#![cfg(test)]

use std::sync::Arc;

use nerite_saved::testing::{Mutation, golden, mutated, through_json};
use nerite_virtio::VirtioPci;
use nerite_virtio::fake::{Driver, FakeQueue, GuestRam, RAM, Rings, WRITE, function, ram, wait};
use nerite_virtio_rng::Rng;
use proptest::prelude::*;

const DATA: u64 = RAM + 0x4000;

fn device(ram: &Arc<GuestRam>) -> Arc<VirtioPci<Rng>> {
    let function = function(Rng::new().unwrap(), ram);
    function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(()))).unwrap();
    function
}

fn started() -> (Arc<GuestRam>, Arc<VirtioPci<Rng>>, FakeQueue) {
    let ram = ram(1 << 20);
    let function = device(&ram);
    let driver = Driver::new(function.clone());
    driver.negotiate(u64::MAX);
    driver.set_queue(0, &Rings::at(RAM, 16));
    driver.ready();
    (ram.clone(), function, FakeQueue::new(ram, Rings::at(RAM, 16)))
}

#[test]
fn every_request_is_answered_once_wherever_it_was() {
    let (ram, mut function, mut queue) = started();
    let (mut asked, mut answered) = (0_u32, 0_u32);
    while answered < 1_000 {
        while asked - answered < 8 {
            assert_eq!(u32::from(queue.add(&[(DATA, 64, WRITE)])), asked % 16);
            asked += 1;
        }
        Driver::new(function.clone()).kick(0);
        (0..asked % 7).for_each(|_| std::thread::yield_now());
        function.pause();
        let saved = through_json(&function.save().unwrap());
        function = device(&ram);
        function.restore(&saved).unwrap();
        function.resume();
        wait(|| {
            while let Some((head, written)) = queue.take_used() {
                assert_eq!((head, written), (answered % 16, 64));
                answered += 1;
            }
            (answered + 4 >= asked).then_some(())
        });
    }
}

#[test]
fn states_of_version_1_can_be_restored() {
    let (ram, function, mut queue) = started();
    queue.add(&[(DATA, 64, WRITE)]);
    Driver::new(function.clone()).kick(0);
    wait(|| queue.take_used());
    function.pause();
    let saved = golden("tests/state_v1.json", &function.save().unwrap());
    let function = device(&ram);
    function.restore(&saved).unwrap();
    assert_eq!(function.save().unwrap(), saved);
    function.resume();
    queue.add(&[(DATA, 64, WRITE)]);
    let driver = Driver::new(function);
    driver.kick(0);
    assert_eq!(wait(|| queue.take_used()), (1, 64));
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
