//! A card that is restored as another device.

use std::collections::VecDeque;

use nerite_saved::testing::{Mutation, golden, mutated, through_json};
use nerite_virtio::RestoreError;
use nerite_virtio_net::NetState;
use proptest::prelude::*;

use super::*;

impl Bench {
    /// A card like this one, on the same wires and with the same guest memory.
    fn successor(&self, pairs: u16, wires: &[UnixDatagram]) -> Arc<VirtioPci<Net>> {
        let backend = |wire: &UnixDatagram| {
            Box::new(Datagrams(wire.try_clone().unwrap())) as Box<dyn Backend>
        };
        let config =
            NetConfig { mac: Mac([2, 0, 0, 0, 0, 9]), mtu: Some(1500), pairs, offloads: 0 };
        let side = Side::Backends(wires.iter().map(backend).collect());
        let function = function(Net::new(config, side).unwrap(), &self.ram);
        function.device().run(function.notifier(), function.kicks()).unwrap();
        function
    }

    /// Restores the state in a card like this one.
    fn move_on(&mut self, pairs: u16, wires: &[UnixDatagram]) {
        self.function.pause();
        let saved = through_json(&self.function.save().unwrap());
        self.function.device().halt();
        let function = self.successor(pairs, wires);
        function.restore(&saved).unwrap();
        assert_eq!(function.save().unwrap(), saved);
        function.resume();
        self.driver = Driver::new(function.clone());
        self.function = function;
    }
}

/// A bench, and the card's ends of its wires.
fn bench_and_wires(pairs: u16) -> (Bench, Vec<UnixDatagram>) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let (our, their) = UnixDatagram::pair().unwrap();
        for end in [&our, &their] {
            end.set_nonblocking(true).unwrap();
        }
        ours.push(our);
        theirs.push(their);
    }
    let backend =
        |wire: &UnixDatagram| Box::new(Datagrams(wire.try_clone().unwrap())) as Box<dyn Backend>;
    let side = Side::Backends(theirs.iter().map(backend).collect());
    (bench_with(pairs, side, ours), theirs)
}

fn frame(number: u32) -> Vec<u8> {
    [&[0; HEADER][..], &number.to_le_bytes(), &[7; 100]].concat()
}

fn number(frame: &[u8]) -> u32 {
    u32::from_le_bytes(frame[HEADER..HEADER + 4].try_into().unwrap())
}

#[test]
fn every_frame_and_buffer_comes_once_wherever_it_was() {
    for features in [0, feature::MRG_RXBUF | transport::EVENT_IDX] {
        let (mut bench, wires) = bench_and_wires(1);
        let mut queues = bench.start(features, 2);
        let (mut sent, mut arrived, mut given, mut received) = (0_u32, 0_u32, 0_u32, 0_u32);
        let (mut on_wire, mut heads) = (0_u32, [VecDeque::new(), VecDeque::new()]);
        for turn in 0..1_000_u32 {
            if heads[1].len() < 8 {
                let at = FRAMES + 0x1000 * u64::from(sent % 16);
                bench.ram.write(at, &frame(sent)).unwrap();
                heads[1].push_back(queues[1].add(&[(at, frame(0).len() as u32, 0)]));
                sent += 1;
            }
            if heads[0].len() < 12 {
                let at = FRAMES + 0x20000 + 0x1000 * u64::from(given % 16);
                heads[0].push_back(queues[0].add(&[(at, 1600, WRITE)]));
                given += 1;
            }
            on_wire += u32::from(bench.wires[0].send(&frame(on_wire)).is_ok());
            (0..2).for_each(|queue| bench.driver.kick(queue));
            (0..turn % 5).for_each(|_| std::thread::yield_now());
            if turn % 3 == 0 {
                bench.move_on(1, &wires);
            }
            let mut buffer = [0; 2000];
            while let Ok(length) = bench.wires[0].recv(&mut buffer) {
                assert_eq!(number(&buffer[..length]), arrived);
                arrived += 1;
            }
            while let Some((head, _)) = queues[1].take_used() {
                assert_eq!(Some(head), heads[1].pop_front().map(u32::from));
            }
            while let Some((head, length)) = queues[0].take_used() {
                assert_eq!(Some(head), heads[0].pop_front().map(u32::from));
                let mut got = vec![0; length as usize];
                let at = FRAMES + 0x20000 + 0x1000 * u64::from(received % 16);
                bench.ram.read(at, &mut got).unwrap();
                assert_eq!(number(&got), received);
                received += 1;
            }
        }
        wait(|| {
            let mut buffer = [0; 2000];
            while bench.wires[0].recv(&mut buffer).is_ok() {
                arrived += 1;
            }
            (arrived == sent).then_some(())
        });
        assert!(received > 100, "{received}");
    }
}

#[test]
fn an_empty_receive_buffer_does_not_upset_the_order() {
    let (mut bench, wires) = bench_and_wires(1);
    let mut queues = bench.start(feature::MRG_RXBUF, 2);
    let heads = [(FRAMES, 20), (FRAMES, 0), (FRAMES + 0x1000, 1600)]
        .map(|(at, length)| queues[0].add(&[(at, length, WRITE)]));
    bench.driver.kick(0);
    std::thread::sleep(Duration::from_millis(5));
    bench.move_on(1, &wires);
    bench.wires[0].send(&frame(5)).unwrap();
    for (head, length) in heads.into_iter().zip([20, 0, 96]) {
        assert_eq!(wait(|| queues[0].take_used()), (head.into(), length));
    }
}

#[test]
fn address_link_and_pairs_stay() {
    let (mut bench, wires) = bench_and_wires(2);
    let mut queues = bench.start(u64::MAX, 5);
    assert_eq!(pairs::command(&bench, &mut queues[4], 4, &[4, 0, 2, 0]), 0);
    bench.function.device().set_link(false);
    bench.move_on(2, &wires);
    let device = bench.function.device();
    assert_eq!(device.config().mac, Mac([2, 0, 0, 0, 0, 1]), "not the new one's");
    assert_eq!(bench.driver.read(region::DEVICE + 5, 1), 1);
    assert_eq!(bench.driver.read(region::DEVICE + 6, 2), 0, "the link is down");
    assert!(device.set_link(true));
    bench.wires[1].send(&frame(1)).unwrap();
    let head = queues[2].add(&[(FRAMES, 1600, WRITE)]);
    bench.driver.kick(2);
    assert_eq!(wait(|| queues[2].take_used()).0, u32::from(head));
    assert_eq!(pairs::command(&bench, &mut queues[4], 4, &[4, 0, 1, 0]), 0);
}

#[test]
fn impossible_states_are_refused_by_name() {
    let (bench, _) = bench_and_wires(1);
    bench.function.pause();
    let saved = bench.function.save().unwrap();
    type Change = fn(&mut NetState);
    let changes: [(&str, Change); 5] = [
        ("version 2", |state| state.version = 2),
        ("address", |state| state.mac[0] |= 1),
        ("address", |state| state.mac = [0; 6]),
        ("queue pairs", |state| state.pairs = 0),
        ("queue pairs", |state| state.pairs = 2),
    ];
    for (expected, change) in changes {
        let mut saved = saved.clone();
        change(&mut saved.device);
        let text = bench.function.restore(&saved).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    let (more, _) = bench_and_wires(2);
    assert!(matches!(more.function.restore(&saved), Err(RestoreError::Mismatch { .. })));
}

#[test]
fn states_of_version_1_can_be_restored() {
    let (mut bench, wires) = bench_and_wires(2);
    let mut queues = bench.start(u64::MAX, 5);
    queues[0].add(&[(FRAMES, 1600, WRITE)]);
    assert_eq!(pairs::command(&bench, &mut queues[4], 4, &[4, 0, 2, 0]), 0);
    bench.function.pause();
    let saved = golden("tests/card/state_v1.json", &bench.function.save().unwrap());
    let function = bench.successor(2, &wires);
    function.restore(&saved).unwrap();
    assert_eq!(function.save().unwrap(), saved);
    function.resume();
    bench.driver = Driver::new(function);
    bench.wires[0].send(&frame(1)).unwrap();
    assert_eq!(wait(|| queues[0].take_used()).1, frame(1).len() as u32);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_states_are_survived(mutations in prop::collection::vec(any::<Mutation>(), 1..6)) {
        let (bench, wires) = bench_and_wires(1);
        let mut queues = bench.start(0, 3);
        queues[0].add(&[(FRAMES, 1600, WRITE)]);
        bench.function.pause();
        if let Some(saved) = mutated(&bench.function.save().unwrap(), &mutations) {
            let function = bench.successor(1, &wires);
            if function.restore(&saved).is_ok() {
                function.resume();
                bench.wires[0].send(&frame(1)).unwrap();
                function.pause();
                function.save().unwrap();
            }
        }
    }
}
