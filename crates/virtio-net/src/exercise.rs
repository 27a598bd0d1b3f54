//! A queue pair with any descriptors, for the fuzz target and the property test that look for some
//! that it does not stand.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "test support; a failure is what it looks for"
)]

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nerite_memory::GuestRam;
use nerite_virtio::fake::{FakeQueue, RAM, Rings, WRITE, ram};
use nerite_virtio::{Event, Queue, QueueError, Segment, feature as transport};

use crate::backend::{Backend, HEADER, MAX_FRAME, write_across};
use crate::control;
use crate::counters::QueueCounters;
use crate::feature;
use crate::pair::Pair;

/// Entries of a queue.
const SIZE: u16 = 16;
/// RAM: rings at the beginning, a page for each queue's, then frames.
const BYTES: u64 = 256 << 10;
const FRAMES: u64 = RAM + 0x4000;
/// The most steps, and the most frames that wait.
const STEPS: usize = 128;
const WAITING: usize = 8;
/// Frames in a batch, and so calls of a backend: one for each, and a last one that says there is no
/// more.
const BATCH: u32 = 130;

/// One step: what to do, where, and with what.
pub type Step = (u8, u16, u64);

/// Sends back what is sent, for as long as there is room.
struct Echo {
    event: Event,
    frames: VecDeque<Vec<u8>>,
    merges: bool,
    calls: u32,
}

impl Echo {
    fn take(&mut self, headers: &[u8], ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        self.calls += 1;
        if self.frames.len() >= WAITING {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut frame = headers.to_vec();
        for piece in pieces {
            let at = frame.len();
            assert!(
                at + piece.length as usize <= 2 * MAX_FRAME,
                "a frame that no backend can take"
            );
            frame.resize(at + piece.length as usize, 0);
            ram.read(piece.address, &mut frame[at..]).expect("pieces are in RAM");
        }
        self.frames.push_back(frame);
        Ok(())
    }
}

impl Backend for Echo {
    fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn send(&mut self, ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        self.take(&[], ram, pieces)
    }

    fn merges(&self) -> bool {
        self.merges
    }

    fn send_built(&mut self, headers: &[u8], ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        self.take(headers, ram, pieces)
    }

    fn receive(&mut self, ram: &GuestRam, room: &[Segment], spill: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        let frame = self.frames.pop_front().ok_or(ErrorKind::WouldBlock)?;
        write_across(ram, room, 0, &frame).expect("room is in RAM");
        let bytes = room.iter().map(|piece| piece.length as usize).sum::<usize>();
        for (to, from) in spill.iter_mut().zip(frame.iter().skip(bytes)) {
            *to = *from;
        }
        Ok(frame.len().min(MAX_FRAME))
    }
}

/// A card without transport.
struct Bench {
    ram: Arc<GuestRam>,
    pair: Pair,
    control: Queue,
    queues: [FakeQueue; 3],
    backend: Echo,
    counters: QueueCounters,
}

impl Bench {
    fn new(features: u64) -> Self {
        let ram = ram(BYTES);
        let rings = [0, 1, 2].map(|index: u16| Rings::at(RAM + 0x1000 * u64::from(index), SIZE));
        let queue = |index: usize| {
            let config = rings[index].config(index as u16, SIZE);
            Queue::new(ram.clone(), &config, features).expect("rings in RAM")
        };
        Self {
            pair: Pair::new(Some(queue(0)), Some(queue(1)), features, Some(1500)),
            control: queue(2),
            queues: rings.map(|rings| FakeQueue::new(ram.clone(), rings)),
            backend: Echo {
                event: Event::new().expect("an event"),
                frames: VecDeque::new(),
                merges: features & feature::HOST_TSO4 != 0,
                calls: 0,
            },
            counters: QueueCounters::default(),
            ram,
        }
    }

    /// Does what a step says.
    fn step(&mut self, (kind, at, value): Step) -> Result<(), QueueError> {
        let index = usize::from(kind >> 6) % 3;
        let queue = &mut self.queues[index];
        match kind & 15 {
            // Whatever is written to rings, descriptors and what they point to, in and out of RAM.
            0 => drop(self.ram.write(RAM + u64::from(at) % 0x5000, &value.to_le_bytes())),
            1 => queue.set_descriptor(
                at % SIZE,
                (value, value as u32 >> 16, at >> 12),
                value as u16 % 20,
            ),
            2 => queue.set_descriptor(
                at % SIZE,
                (FRAMES + value % 0x8000, (value >> 32) as u32 % 2000, at >> 12),
                at >> 4 & 15,
            ),
            3 => queue.publish(at % (SIZE + 1)),
            4 => queue.set_available_index(at),
            5 => queue.set_used_event(at),
            // What a driver does that knows its trade.
            6 | 7 => {
                let write = if index == 0 { WRITE } else { 0 };
                queue.add(&[(FRAMES + value % 0x8000, u32::from(at) % 1600 + 1, write)]);
            }
            8 | 9 => {
                let halves = [0, 1].map(|half| (FRAMES + value % 0x8000 + half * 800, 800, WRITE));
                queue.add(if index == 0 { &halves } else { &halves[..1] });
            }
            10 if self.backend.frames.len() < WAITING => {
                self.backend.frames.push_back(vec![value as u8; usize::from(at)]);
            }
            11 => {
                control::serve(&mut self.control, |pairs| pairs < 4)?;
            }
            12 | 13 => {
                self.backend.calls = 0;
                self.pair.receive(&mut self.backend, &self.counters)?;
                assert!(self.backend.calls <= BATCH, "{} calls in a batch", self.backend.calls);
            }
            _ => {
                self.backend.calls = 0;
                self.pair.transmit(&mut self.backend, &self.counters)?;
                assert!(self.backend.calls <= 2 * BATCH, "{} calls in a batch", self.backend.calls);
            }
        }
        Ok(())
    }
}

/// Has a driver do these steps, on queues with these features, until it makes a mistake; then on
/// fresh ones, as after a reset. At the end a frame goes out and comes back.
///
/// # Panics
/// If something is not as it has to be.
pub fn exercise(features: u64, steps: &[Step]) {
    let known =
        transport::INDIRECT_DESC | transport::EVENT_IDX | feature::MRG_RXBUF | feature::OFFLOADS;
    let mut bench = Bench::new(features & known);
    for step in steps.iter().take(STEPS) {
        if bench.step(*step).is_err() {
            bench = Bench::new(features & known);
        }
    }
    bench = Bench::new(features & known);
    let frame =
        [&[0; HEADER][..], b"there and back, sixty bytes as the shortest frames are"].concat();
    bench.ram.write(FRAMES, &frame).expect("frames in RAM");
    bench.queues[0].add(&[(FRAMES + 0x2000, 2000, WRITE)]);
    bench.queues[1].add(&[(FRAMES, frame.len() as u32, 0)]);
    bench.pair.transmit(&mut bench.backend, &bench.counters).expect("a frame that is well made");
    bench.pair.receive(&mut bench.backend, &bench.counters).expect("a buffer that is well made");
    let mut back = vec![0; frame.len()];
    bench.ram.read(FRAMES + 0x2000, &mut back).expect("frames in RAM");
    assert_eq!(back[HEADER..], frame[HEADER..]);
    assert_eq!(bench.queues[0].take_used(), Some((0, frame.len() as u32)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_driver_that_does_anything_does_no_harm(
            features: u64,
            steps in prop::collection::vec(any::<Step>(), 0..STEPS),
        ) {
            exercise(features, &steps);
        }
    }
}
