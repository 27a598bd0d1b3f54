//! The link goes down and up.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[test]
fn a_pulled_cable_drops_frames_and_is_seen() {
    let bench = bench(1);
    let mut queues = bench.start(0, 2);
    bench.exchange(&mut queues, 0);
    let net = bench.function.device();
    let link = || bench.driver.read(region::DEVICE + 6, 2);
    assert_eq!(link(), 1);
    assert!(net.set_link(false) && !net.set_link(false));
    assert_eq!(link(), 0);
    let head = queues[1].add(&[(FRAMES, 40, 0)]);
    bench.driver.kick(1);
    // It is given back, as one that was sent.
    assert_eq!(wait(|| queues[1].take_used()), (head.into(), 0));
    let receive = queues[0].add(&[(FRAMES + 4096, 1600, WRITE)]);
    bench.driver.kick(0);
    bench.wires[0].send(&[7; 60]).unwrap();
    wait(|| (net.counters().queues().map(|queue| queue.drops).eq([1, 1])).then_some(()));
    assert_eq!(queues[0].take_used(), None);
    assert!(net.set_link(true));
    bench.wires[0].send(&[8; 60]).unwrap();
    assert_eq!(wait(|| queues[0].take_used()), (receive.into(), 60));
    bench.wires[0].set_nonblocking(true).unwrap();
    bench.wires[0].recv(&mut [0; 100]).unwrap_err();
}

/// A backend that is slow to find that there is no frame for a card whose link is down.
struct Slow {
    frames: Datagrams,
    is_looking: Arc<AtomicBool>,
}

impl Backend for Slow {
    fn fd(&self) -> BorrowedFd<'_> {
        self.frames.fd()
    }

    fn send(&mut self, ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        self.frames.send(ram, pieces)
    }

    fn receive(&mut self, ram: &GuestRam, room: &[Segment], spill: &mut [u8]) -> io::Result<usize> {
        let is_unplugged = room.is_empty();
        self.frames.0.set_nonblocking(!is_unplugged)?;
        if is_unplugged {
            self.frames.0.set_read_timeout(Some(Duration::from_millis(200)))?;
            self.is_looking.store(true, Ordering::Release);
        }
        let received = self.frames.receive(ram, room, spill);
        self.frames.0.set_nonblocking(true)?;
        received
    }
}

#[test]
fn no_frame_is_dropped_once_the_link_is_up() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let is_looking = Arc::new(AtomicBool::new(false));
    let backend = Slow { frames: Datagrams(theirs), is_looking: is_looking.clone() };
    let bench = bench_with(1, Side::Backends(vec![Box::new(backend)]), vec![ours]);
    let mut queues = bench.start(0, 2);
    let head = queues[0].add(&[(FRAMES, 1600, WRITE)]);
    bench.driver.kick(0);
    let net = bench.function.device();
    assert!(net.set_link(false));
    // The card's thread drops what it finds.
    wait(|| is_looking.load(Ordering::Acquire).then_some(()));
    assert!(net.set_link(true));
    bench.wires[0].send(&[8; 60]).unwrap();
    assert_eq!(wait(|| queues[0].take_used()), (head.into(), 60));
}
