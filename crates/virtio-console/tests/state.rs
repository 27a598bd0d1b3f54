//! A console that is restored as another device.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use nerite_saved::testing::{Mutation, golden, mutated, through_json};
use nerite_virtio::VirtioPci;
use nerite_virtio::fake::{Driver, FakeQueue, GuestRam, RAM, Rings, WRITE, function, ram, wait};
use nerite_virtio_console::{Console, INPUT, Output};
use proptest::prelude::*;

const DATA: u64 = RAM + 0x10000;

type Function = Arc<VirtioPci<Console>>;

fn device(ram: &Arc<GuestRam>, output: Output) -> Function {
    let function = function(Console::new().unwrap(), ram);
    function
        .device()
        .run(function.notifier(), function.kicks(), Box::new(|| Ok(())), output)
        .unwrap();
    function
}

fn into(sink: &Arc<Mutex<Vec<u8>>>) -> Output {
    let sink = sink.clone();
    Box::new(move |bytes| {
        sink.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    })
}

/// Receive and transmit queues of a driver that is ready.
fn start(ram: &Arc<GuestRam>, function: &Function) -> [FakeQueue; 2] {
    let driver = Driver::new(function.clone());
    driver.negotiate(u64::MAX);
    let rings = [0, 1].map(|index: u16| Rings::at(RAM + 0x2000 * u64::from(index), 16));
    (0..).zip(&rings).for_each(|(index, rings)| driver.set_queue(index, rings));
    driver.ready();
    rings.map(|rings| FakeQueue::new(ram.clone(), rings))
}

/// Another console in the state of this one, whose thread has ended.
fn moved(function: &Function, ram: &Arc<GuestRam>, output: Output) -> Function {
    function.pause();
    function.device().halt();
    let saved = through_json(&function.save().unwrap());
    let function = device(ram, output);
    function.restore(&saved).unwrap();
    assert_eq!(function.save().unwrap(), saved);
    function.resume();
    function
}

#[test]
fn output_and_input_arrive_once_and_in_order() {
    let (ram, sink) = (ram(1 << 20), Arc::new(Mutex::new(Vec::new())));
    let mut function = device(&ram, into(&sink));
    let [mut receive, mut transmit] = start(&ram, &function);
    let (mut written, mut typed, mut read) = (0_usize, 0_usize, 0_usize);
    let bytes =
        |from: usize, count| (from..from + count).map(|n| (n % 251) as u8).collect::<Vec<_>>();
    let mut waiting = Vec::new();
    for turn in 0..300_usize {
        // A buffer of output of up to three pieces, and some input.
        let length = turn * 97 % 10_000 + 1;
        ram.write(DATA, &bytes(written, length)).unwrap();
        written += length;
        transmit.add(&[(DATA, length as u32, 0)]);
        typed += function.device().enqueue(&bytes(typed, turn % 50));
        if waiting.len() < 8 {
            let at = DATA + 0x10000 + 0x100 * (turn as u64 % 16);
            waiting.push((receive.add(&[(at, 10, WRITE)]), at));
        }
        let driver = Driver::new(function.clone());
        (0..2).for_each(|queue| driver.kick(queue));
        (0..turn % 5).for_each(|_| std::thread::yield_now());
        function = moved(&function, &ram, into(&sink));
        wait(|| transmit.take_used());
        while let Some((head, length)) = receive.take_used() {
            let (expected, at) = waiting.remove(0);
            assert_eq!(head, u32::from(expected));
            let mut got = vec![0; length as usize];
            ram.read(at, &mut got).unwrap();
            assert_eq!(got, bytes(read, got.len()));
            read += got.len();
        }
        assert!(typed - read <= INPUT);
    }
    assert!(*sink.lock().unwrap() == bytes(0, written));
    assert!(read > 100, "{read}");
}

#[test]
fn output_that_is_being_written_counts_as_not_written() {
    let (ram, (entered, has_entered), (go_on, waits)) = (ram(1 << 20), channel(), channel());
    let mut pieces = 0;
    let blocks = Box::new(move |_: &[u8]| {
        pieces += 1;
        entered.send(()).unwrap();
        if pieces == 2 { waits.recv().map_err(std::io::Error::other) } else { Ok(()) }
    });
    let function = device(&ram, blocks);
    let [_, mut transmit] = start(&ram, &function);
    ram.write(DATA, &[[1; 4096], [2; 4096]].concat()).unwrap();
    transmit.add(&[(DATA, 8192, 0)]);
    Driver::new(function.clone()).kick(1);
    (0..2).for_each(|_| has_entered.recv().unwrap());
    function.pause();
    let saved = function.save().unwrap();
    assert_eq!((saved.device.written, saved.queues[1].unwrap().next_available), (4096, 0));
    let sink = Arc::new(Mutex::new(Vec::new()));
    go_on.send(()).unwrap();
    function.device().halt();
    assert_eq!(function.save().unwrap().device.written, 8192);
    let other = device(&ram, into(&sink));
    other.restore(&saved).unwrap();
    other.resume();
    wait(|| transmit.take_used());
    assert_eq!(*sink.lock().unwrap(), [2; 4096]);
}

/// A console with something in every field of its state.
fn busy(ram: &Arc<GuestRam>) -> Function {
    let function = device(ram, Box::new(|_| Ok(())));
    let [_, mut transmit] = start(ram, &function);
    transmit.add(&[(DATA, 5, 0)]);
    Driver::new(function.clone()).kick(1);
    wait(|| transmit.take_used());
    function.device().enqueue(b"typed");
    function.pause();
    function
}

#[test]
fn states_of_version_1_can_be_restored() {
    let ram = ram(1 << 20);
    let saved = golden("tests/state_v1.json", &busy(&ram).save().unwrap());
    let function = device(&ram, Box::new(|_| Ok(())));
    function.restore(&saved).unwrap();
    assert_eq!(function.save().unwrap(), saved);
    function.resume();
    let mut receive = FakeQueue::new(ram.clone(), Rings::at(RAM, 16));
    receive.add(&[(DATA, 10, WRITE)]);
    let driver = Driver::new(function);
    driver.kick(0);
    assert_eq!(wait(|| receive.take_used()), (0, 5));
    assert_eq!(ram.read_cstr(DATA, 10).unwrap(), b"typed");
}

#[test]
fn impossible_states_are_refused_by_name() {
    let function = busy(&ram(1 << 20));
    let mut saved = function.save().unwrap();
    saved.device.input = vec![0; INPUT + 1];
    let error = function.restore(&saved).unwrap_err().to_string();
    assert_eq!(error, "saved state of the console: input is impossible");
    saved.device.version = 0;
    assert!(function.restore(&saved).unwrap_err().to_string().contains("version 0"));
}

proptest! {
    #[test]
    fn hostile_states_are_survived(mutations in prop::collection::vec(any::<Mutation>(), 1..6)) {
        let ram = ram(1 << 20);
        if let Some(saved) = mutated(&busy(&ram).save().unwrap(), &mutations) {
            let function = device(&ram, Box::new(|_| Ok(())));
            if function.restore(&saved).is_ok() {
                function.resume();
                function.device().enqueue(b"more");
                function.pause();
                function.save().unwrap();
            }
        }
    }
}
