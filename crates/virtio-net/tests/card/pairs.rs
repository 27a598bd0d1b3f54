//! The control queue, and which pairs are used.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

use nerite_memory::GuestRam;
use nerite_virtio::Segment;
use nerite_virtio::fake::{FakeQueue, WRITE};
use nerite_virtio_net::{Backend, Side, feature};

use crate::{Bench, Datagrams, FRAMES, bench, bench_with, wait};

/// Sends a command and returns the answer.
pub(crate) fn command(bench: &Bench, control: &mut FakeQueue, index: u16, bytes: &[u8]) -> u8 {
    bench.ram.write(FRAMES + 0x8000, bytes).unwrap();
    bench.ram.write(FRAMES + 0x9000, &[0xaa]).unwrap();
    control.add(&[
        (FRAMES + 0x8000, 2, 0),
        (FRAMES + 0x8002, bytes.len() as u32 - 2, 0),
        (FRAMES + 0x9000, 1, WRITE),
    ]);
    bench.driver.kick(index);
    wait(|| control.take_used());
    let mut answer = [0];
    bench.ram.read(FRAMES + 0x9000, &mut answer).unwrap();
    answer[0]
}

#[test]
fn further_pairs_are_used_when_the_driver_says_so() {
    let bench = bench(2);
    let mut queues = bench.start(feature::MQ | feature::CTRL_VQ, 5);
    let mut control = queues.remove(4);
    bench.exchange(&mut queues, 0);
    assert_eq!(command(&bench, &mut control, 4, &[4, 0, 2, 0]), 0);
    bench.exchange(&mut queues, 1);
    bench.exchange(&mut queues, 0);
    for bad in [
        &[4, 0, 0, 0][..],
        &[4, 0, 3, 0],
        &[4, 0, 0xff, 0xff],
        &[4, 1, 1, 0],
        &[0, 0, 1],
        &[9, 9, 9, 9],
    ] {
        assert_eq!(command(&bench, &mut control, 4, bad), 1, "{bad:?}");
    }
    // Without MQ, the control queue is the third one.
    let mut queues = bench.start(feature::CTRL_VQ, 3);
    let mut control = queues.remove(2);
    assert_eq!(command(&bench, &mut control, 2, &[4, 0, 1, 0]), 0);
    bench.exchange(&mut queues, 0);
}

#[test]
fn an_answer_behind_more_room_is_not_counted() {
    let bench = bench(1);
    let mut queues = bench.start(feature::CTRL_VQ, 3);
    bench.ram.write(FRAMES, &[4, 0, 1, 0]).unwrap();
    for (room, counted) in [(1, 1), (2, 0)] {
        queues[2].add(&[(FRAMES, 4, 0), (FRAMES + 64, room, WRITE)]);
        bench.driver.kick(2);
        assert_eq!(wait(|| queues[2].take_used()).1, counted);
    }
}

/// A request to a pair's backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Features(u64),
    Enabled(bool),
}

struct Recorder {
    frames: Datagrams,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Backend for Recorder {
    fn fd(&self) -> BorrowedFd<'_> {
        self.frames.fd()
    }

    fn send(&mut self, ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        self.frames.send(ram, pieces)
    }

    fn receive(&mut self, ram: &GuestRam, room: &[Segment], spill: &mut [u8]) -> io::Result<usize> {
        self.frames.receive(ram, room, spill)
    }

    fn set_features(&mut self, features: u64) -> io::Result<()> {
        self.calls.lock().unwrap().push(Call::Features(features));
        Ok(())
    }

    fn set_enabled(&mut self, enabled: bool) -> io::Result<()> {
        self.calls.lock().unwrap().push(Call::Enabled(enabled));
        Ok(())
    }
}

/// A card with pairs that say what they are asked for.
fn recorded<const PAIRS: usize>() -> (Bench, [Arc<Mutex<Vec<Call>>>; PAIRS]) {
    let calls: [Arc<Mutex<Vec<Call>>>; PAIRS] = std::array::from_fn(|_| Arc::default());
    let backends = calls.iter().map(|calls| {
        let (_, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        Box::new(Recorder { frames: Datagrams(theirs), calls: calls.clone() }) as Box<dyn Backend>
    });
    (bench_with(PAIRS as u16, Side::Backends(backends.collect()), Vec::new()), calls)
}

fn take(calls: &Mutex<Vec<Call>>) -> Vec<Call> {
    std::mem::take(&mut *calls.lock().unwrap())
}

#[test]
fn a_backend_learns_what_the_driver_takes() {
    let (bench, [calls]) = recorded();
    let accepted = bench.driver.negotiate(feature::MRG_RXBUF | feature::MTU);
    bench.driver.ready();
    assert_eq!(take(&calls), [Call::Features(accepted), Call::Enabled(true)]);
}

#[test]
fn further_pairs_are_enabled_by_command_only() {
    let (bench, [first, second]) = recorded();
    let mut queues = bench.start(feature::MQ | feature::CTRL_VQ, 5);
    assert_eq!(take(&first).last(), Some(&Call::Enabled(true)));
    assert_eq!(take(&second).last(), Some(&Call::Enabled(false)));
    for (pairs, enabled) in [(2, true), (1, false)] {
        assert_eq!(command(&bench, &mut queues[4], 4, &[4, 0, pairs, 0]), 0);
        wait(|| (second.lock().unwrap().last() == Some(&Call::Enabled(enabled))).then_some(()));
    }
}
