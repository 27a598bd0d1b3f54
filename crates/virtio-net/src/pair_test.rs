use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nerite_memory::GuestRam;
use nerite_virtio::fake::{
    Buffer, FakeQueue, INDIRECT, NEXT, RAM, Rings, WRITE, ram, write_descriptor,
};
use nerite_virtio::{Event, Segment, feature as transport};
use proptest::prelude::*;

use super::*;
use crate::backend::{HEADER, write_across};
use crate::feature;

pub(super) const FRAMES: u64 = RAM + 0x10000;

/// Frames in memory. Sending blocks when `room` is used up; a frame that begins with 0xee is
/// refused.
pub(super) struct Memory {
    event: Event,
    pub(super) incoming: VecDeque<Vec<u8>>,
    pub(super) sent: Vec<Vec<u8>>,
    pub(super) room: usize,
    pub(super) merges: bool,
    pub(super) streams: Vec<bool>,
}

impl Backend for Memory {
    fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn send(&mut self, ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        if self.sent.len() >= self.room {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut frame = Vec::new();
        for piece in pieces {
            let at = frame.len();
            frame.resize(at + piece.length as usize, 0);
            ram.read(piece.address, &mut frame[at..]).unwrap();
        }
        if frame.get(HEADER) == Some(&0xee) {
            return Err(io::Error::other("refused"));
        }
        self.sent.push(frame);
        Ok(())
    }

    fn merges(&self) -> bool {
        self.merges
    }

    fn set_stream(&mut self, is_stream: bool) {
        self.streams.push(is_stream);
    }

    fn send_built(&mut self, headers: &[u8], ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        self.send(ram, pieces)?;
        self.sent.last_mut().unwrap().splice(..0, headers.iter().copied());
        Ok(())
    }

    fn receive(&mut self, ram: &GuestRam, room: &[Segment], spill: &mut [u8]) -> io::Result<usize> {
        let frame = self.incoming.pop_front().ok_or(ErrorKind::WouldBlock)?;
        write_across(ram, room, 0, &frame).unwrap();
        let bytes = room.iter().map(|piece| piece.length as usize).sum::<usize>();
        if let Some(rest) = frame.get(bytes..) {
            let length = rest.len().min(spill.len());
            spill[..length].copy_from_slice(&rest[..length]);
        }
        Ok(frame.len())
    }
}

pub(super) struct Bench {
    pub(super) ram: Arc<GuestRam>,
    pub(super) rx: FakeQueue,
    pub(super) tx: FakeQueue,
    pair: Pair,
    pub(super) backend: Memory,
    pub(super) counters: [QueueCounters; 2],
}

pub(super) fn bench(size: u16, features: u64) -> Bench {
    let ram = ram(4 << 20);
    let queue = |index: u16| {
        let rings = Rings::at(RAM + 0x4000 * u64::from(index), size);
        let config = rings.config(index, size);
        (Queue::new(ram.clone(), &config, features).unwrap(), FakeQueue::new(ram.clone(), rings))
    };
    let ((rx, fake_rx), (tx, fake_tx)) = (queue(0), queue(1));
    Bench {
        pair: Pair::new(Some(rx), Some(tx), features, Some(1500)),
        rx: fake_rx,
        tx: fake_tx,
        backend: Memory {
            event: Event::new().unwrap(),
            incoming: VecDeque::new(),
            sent: Vec::new(),
            room: usize::MAX,
            merges: false,
            streams: Vec::new(),
        },
        counters: Default::default(),
        ram,
    }
}

pub(super) fn frame(length: usize, seed: u8) -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    frame.extend((0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)));
    frame
}

impl Bench {
    pub(super) fn send(&mut self) -> (bool, Progress) {
        self.pair.transmit(&mut self.backend, &self.counters[1]).unwrap()
    }

    pub(super) fn receive(&mut self) -> (bool, Progress) {
        self.pair.receive(&mut self.backend, &self.counters[0]).unwrap()
    }

    pub(super) fn read(&self, address: u64, length: u32) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        self.ram.read(address, &mut bytes).unwrap();
        bytes
    }

    /// Puts the bytes at `FRAMES` and makes them a frame of these pieces.
    fn queue_frame(&mut self, bytes: &[u8], pieces: &[u32]) -> u16 {
        self.ram.write(FRAMES, bytes).unwrap();
        let mut at = FRAMES;
        let buffers: Vec<Buffer> = pieces
            .iter()
            .map(|length| {
                at += u64::from(*length);
                (at - u64::from(*length), *length, 0)
            })
            .collect();
        self.tx.add(&buffers)
    }
}

#[test]
fn frames_are_sent_in_order_and_given_back() {
    let mut bench = bench(8, 0);
    assert_eq!(bench.send(), (false, Progress::Idle));
    let one = frame(60, 1);
    let head = bench.queue_frame(&one, &[12, 20, 40]);
    assert_eq!(bench.send(), (true, Progress::Idle));
    assert_eq!(bench.backend.sent, [one]);
    assert_eq!(bench.tx.take_used(), Some((head.into(), 0)));
    let totals = bench.counters[1].totals();
    assert_eq!((totals.packets, totals.bytes, totals.drops), (1, 60, 0));
    assert!(bench.tx.wants_kick());
}

#[test]
fn what_is_no_frame_is_dropped() {
    let mut bench = bench(8, 0);
    bench.queue_frame(&[0; 11], &[11]);
    bench.tx.add(&[(FRAMES, 60, WRITE)]);
    bench.tx.add(&[(FRAMES, 1 << 20, 0)]);
    let mut refused = frame(60, 0);
    refused[HEADER] = 0xee;
    bench.queue_frame(&refused, &[72]);
    assert_eq!(bench.send(), (true, Progress::Idle));
    assert_eq!(bench.counters[1].totals().drops, 4);
    assert!(bench.backend.sent.is_empty());
    assert_eq!(std::iter::from_fn(|| bench.tx.take_used()).count(), 4);
}

#[test]
fn a_full_backend_keeps_the_order() {
    let mut bench = bench(8, 0);
    bench.backend.room = 1;
    bench.tx.add(&[(FRAMES, 20, 0)]);
    bench.tx.add(&[(FRAMES, 21, 0)]);
    bench.tx.add(&[(FRAMES, 22, 0)]);
    bench.send();
    assert_eq!(bench.send(), (false, Progress::Idle));
    assert_eq!(std::iter::from_fn(|| bench.tx.take_used()).count(), 1);
    // Receive buffers are taken meanwhile, without disturbing the frame that waits.
    bench.rx.add(&[(FRAMES + 4096, 2000, WRITE)]);
    bench.receive();
    bench.backend.room = 9;
    bench.send();
    assert_eq!(bench.backend.sent.iter().map(Vec::len).collect::<Vec<_>>(), [20, 21, 22]);
}

#[test]
fn a_batch_ends_so_that_others_get_their_turn() {
    let mut bench = bench(256, 0);
    for _ in 0..200 {
        bench.tx.add(&[(FRAMES, 60, 0)]);
    }
    assert_eq!(bench.send(), (true, Progress::More));
    assert_eq!(bench.backend.sent.len(), BATCH as usize);
    assert_eq!(bench.send(), (true, Progress::Idle));
    assert_eq!(bench.backend.sent.len(), 200);
}

#[test]
fn a_driver_whose_buffers_are_enough_is_not_to_notify() {
    let mut bench = bench(256, 0);
    for _ in 0..8 {
        bench.rx.add(&[(FRAMES, 1526, WRITE)]);
    }
    bench.backend.incoming.push_back(frame(100, 5));
    bench.receive();
    assert!(!bench.rx.wants_kick(), "seven buffers are left");
    for _ in 0..200 {
        bench.tx.add(&[(FRAMES, 60, 0)]);
    }
    bench.send();
    assert!(!bench.tx.wants_kick(), "the rest of the frames is looked for anyway");
    bench.send();
    assert!(bench.tx.wants_kick());
}

#[test]
fn a_driver_is_asked_anew_after_each_buffer_that_is_not_enough() {
    let mut bench = bench(8, feature::MRG_RXBUF | transport::EVENT_IDX);
    let event = bench.rx.rings.used + 4 + 8 * 8;
    for count in 0..5 {
        bench.receive();
        assert_eq!(bench.read(event, 2), [count, 0], "the index of the next buffer");
        bench.rx.add(&[(FRAMES, 100, WRITE)]);
    }
}

#[test]
fn a_frame_is_received_into_one_buffer() {
    let mut bench = bench(8, 0);
    bench.backend.incoming.push_back(frame(100, 5));
    assert_eq!(bench.receive(), (false, Progress::Idle), "no buffer, and the frame waits");
    assert_eq!(bench.backend.incoming.len(), 1);
    assert!(bench.rx.wants_kick());
    let head = bench.rx.add(&[(FRAMES, 12, WRITE), (FRAMES + 512, 1514, WRITE)]);
    assert_eq!(bench.receive(), (true, Progress::Idle));
    assert_eq!(bench.rx.take_used(), Some((head.into(), 112)));
    assert_eq!(bench.read(FRAMES + 10, 2), [1, 0], "num_buffers");
    assert_eq!(bench.read(FRAMES + 512, 100), frame(100, 5)[HEADER..]);
    // A frame that is too large for its buffer is dropped; the buffer takes the next one.
    let head = bench.rx.add(&[(FRAMES, 64, WRITE)]);
    bench.backend.incoming.extend([frame(53, 1), frame(52, 2)]);
    bench.receive();
    assert_eq!(bench.rx.take_used(), Some((head.into(), 64)));
    assert_eq!(bench.read(FRAMES + 12, 52), frame(52, 2)[HEADER..]);
    assert_eq!(bench.counters[0].totals().drops, 1);
}

#[test]
fn buffers_that_cannot_be_written_are_given_back() {
    let mut bench = bench(8, 0);
    let head = bench.rx.add(&[(FRAMES, 2000, 0)]);
    bench.receive();
    assert_eq!(bench.rx.take_used(), Some((head.into(), 0)));
    assert_eq!(bench.counters[0].totals().drops, 1);
}

#[test]
fn a_frame_fills_several_buffers_where_that_is_agreed() {
    let mut bench = bench(16, feature::MRG_RXBUF);
    let heads: Vec<u16> =
        (0..4).map(|n| bench.rx.add(&[(FRAMES + n * 4096, 700, WRITE)])).collect();
    bench.backend.incoming.extend([frame(1600, 3), frame(50, 4)]);
    assert_eq!(bench.receive(), (true, Progress::Idle));
    assert_eq!(bench.rx.take_used(), Some((heads[0].into(), 700)));
    assert_eq!(bench.rx.take_used(), Some((heads[1].into(), 700)));
    assert_eq!(bench.rx.take_used(), Some((heads[2].into(), 212)));
    assert_eq!(bench.rx.take_used(), Some((heads[3].into(), 62)));
    assert_eq!(bench.read(FRAMES + 10, 2), [3, 0]);
    assert_eq!(bench.read(FRAMES + 3 * 4096 + 10, 2), [1, 0]);
    let whole =
        [bench.read(FRAMES, 700), bench.read(FRAMES + 4096, 700), bench.read(FRAMES + 8192, 212)]
            .concat();
    assert_eq!(whole[HEADER..], frame(1600, 3)[HEADER..]);
}

#[test]
fn a_frame_larger_than_the_buffers_in_hand_waits_for_more() {
    let mut bench = bench(16, feature::MRG_RXBUF);
    let sent = frame(1600, 9);
    bench.backend.incoming.push_back(sent.clone());
    for n in 0..4 {
        bench.rx.add(&[(FRAMES + n * 4096, 500, WRITE)]);
        let (interrupt, progress) = bench.receive();
        assert_eq!(progress, Progress::Idle);
        assert_eq!(interrupt, n == 3);
    }
    let whole: Vec<u8> = (0..4).flat_map(|n| bench.read(FRAMES + n * 4096, 500)).collect();
    assert_eq!(whole[HEADER..1612], sent[HEADER..]);
    assert_eq!(bench.counters[0].totals().packets, 1);
}

#[test]
fn a_frame_that_no_queue_full_of_buffers_holds_is_dropped() {
    let mut bench = bench(4, feature::MRG_RXBUF);
    for n in 0..4 {
        bench.rx.add(&[(FRAMES + n * 64, 16, WRITE)]);
    }
    bench.backend.incoming.extend([frame(1000, 1), frame(2, 2)]);
    bench.receive();
    assert_eq!(bench.counters[0].totals().drops, 1);
    assert_eq!(bench.counters[0].totals().packets, 1);
}

#[test]
fn malformed_chains_are_errors_on_both_queues() {
    for features in [0, transport::INDIRECT_DESC, transport::EVENT_IDX] {
        let mut bench = bench(8, features);
        bench.rx.add(&[(0, 1500, WRITE)]);
        assert!(bench.pair.receive(&mut bench.backend, &bench.counters[0]).is_err());
        bench.tx.add(&[(FRAMES, 12, WRITE), (FRAMES, 60, 0)]);
        assert!(bench.pair.transmit(&mut bench.backend, &bench.counters[1]).is_err());
    }
}

#[test]
fn indirect_frames_are_sent() {
    let mut bench = bench(8, transport::INDIRECT_DESC);
    bench.ram.write(FRAMES, &frame(60, 7)).unwrap();
    write_descriptor(&bench.ram, RAM + 0xf000, FRAMES, 12, NEXT, 1);
    write_descriptor(&bench.ram, RAM + 0xf010, FRAMES + 12, 60, 0, 0);
    bench.tx.add(&[(RAM + 0xf000, 32, INDIRECT)]);
    bench.send();
    assert_eq!(bench.backend.sent, [frame(60, 7)]);
}

proptest! {
    /// Whatever buffers a driver offers and whatever frames come: those that are not dropped arrive
    /// whole, in order.
    #[test]
    fn received_frames_arrive_whole_and_in_order(
        steps in prop::collection::vec((prop::collection::vec(1_u32..900, 1..4), 0_usize..2000, any::<bool>()), 1..60),
        mergeable in any::<bool>(),
    ) {
        let mut bench = bench(256, if mergeable { feature::MRG_RXBUF } else { 0 });
        let mut expected = VecDeque::new();
        let mut at = FRAMES;
        let mut places: std::collections::HashMap<u32, Vec<(u64, u32)>> = Default::default();
        for (seed, (pieces, length, add)) in steps.into_iter().enumerate() {
            if add {
                let buffers: Vec<Buffer> = pieces.iter().map(|length| { at += 1024; (at, *length, WRITE) }).collect();
                let head = bench.rx.add(&buffers);
                places.insert(head.into(), buffers.iter().map(|(address, length, _)| (*address, *length)).collect());
            }
            bench.backend.incoming.push_back(frame(length, seed as u8));
            expected.push_back(frame(length, seed as u8));
            bench.receive();
            while let Some(first) = bench.rx.take_used() {
                let mut gathered = Vec::new();
                let mut next = Some(first);
                let mut taken = 0;
                // A header may be spread over several buffers, too.
                while gathered.len() < HEADER || taken < u16::from_le_bytes([gathered[10], gathered[11]]) {
                    let (head, mut written) = next.take().or_else(|| bench.rx.take_used()).unwrap();
                    for (address, length) in &places[&head] {
                        let now = written.min(*length);
                        gathered.extend(bench.read(*address, now));
                        written -= now;
                    }
                    taken += 1;
                }
                let arrived = loop {
                    let next = expected.pop_front().expect("a frame that was sent");
                    if next[HEADER..] == gathered[HEADER..] { break next; }
                };
                prop_assert_eq!(arrived.len(), gathered.len());
            }
        }
    }
}
