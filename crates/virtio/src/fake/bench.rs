//! A device without transport and thread, and any buffers at all, for fuzz targets and property
//! tests that look for some that the device does not stand.

use std::fmt;
use std::sync::Arc;

use super::{FakeQueue, RAM, Rings, SCRATCH, Step, activation, ram};
use nerite_memory::GuestRam;

use crate::{Event, Notifier, VirtioDevice};

/// Entries of a queue's rings.
const SIZE: u16 = 16;
/// Bytes of RAM for the rings of a queue.
const RINGS: u64 = 0x1000;
/// Bytes of RAM: rings, then buffers.
const BYTES: u64 = 64 << 10;

/// A device that is started, with its queues.
pub struct Bench<D> {
    /// RAM: rings of up to three queues, then [`SCRATCH`] bytes from [`Self::BUFFERS`] on.
    pub ram: Arc<GuestRam>,
    /// The device.
    pub device: D,
    /// Its queues.
    pub queues: Vec<FakeQueue>,
    notifier: Arc<Notifier>,
    features: u64,
}

impl<D> fmt::Debug for Bench<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").finish_non_exhaustive()
    }
}

impl<D: VirtioDevice> Bench<D> {
    /// Address of the bytes that [`Self::spoil`] uses.
    pub const BUFFERS: u64 = RAM + 3 * RINGS;
    /// Most steps of [`Self::exercise`].
    pub const STEPS: usize = 200;

    /// Starts `device` with these features.
    ///
    /// # Panics
    /// If it does not start.
    pub fn new(device: D, features: u64) -> Self {
        let ram = ram(BYTES);
        let none: Arc<[Event]> = Arc::new([]);
        let count = device.queue_sizes().len();
        let notifier = Arc::new(Notifier::new(count, none).expect("events"));
        let mut bench = Self { ram, device, queues: Vec::new(), notifier, features };
        bench.start();
        bench
    }

    fn start(&mut self) {
        let sizes = self.device.queue_sizes();
        self.queues = (0_u64..)
            .zip(sizes)
            .map(|(index, _)| Rings::at(RAM + RINGS * index, SIZE))
            .map(|rings| FakeQueue::new(self.ram.clone(), rings))
            .collect();
        let queues: Vec<_> = self.queues.iter().collect();
        let activation = activation(&queues, sizes[0], self.features, &self.notifier);
        self.device.start(activation).expect("queues in RAM");
    }

    /// Resets the device and starts it with fresh queues.
    ///
    /// # Panics
    /// If it does not stop or start.
    pub fn restart(&mut self) {
        self.device.stop();
        assert!(self.device.is_stopped());
        self.device.resume();
        self.ram.zero(RAM, RINGS * self.queues.len() as u64).expect("RAM");
        self.start();
    }

    /// Scribbles on a queue, as [`FakeQueue::scribble`].
    pub fn scribble(&mut self, queue: usize, step: Step) {
        self.queues[queue].scribble(step, Self::BUFFERS);
    }

    /// Writes 8 bytes somewhere in the buffers.
    pub fn spoil(&self, (_, at, value): Step) {
        let address = Self::BUFFERS + u64::from(at) % SCRATCH;
        let _ = self.ram.write(address, &value.to_le_bytes());
    }

    /// Has a driver do these steps on a device that `make` makes, until it makes a mistake; then on
    /// a fresh device. Returns the last one, restarted for a driver that knows its trade.
    ///
    /// # Panics
    /// If a device that needs a reset takes a `turn` with work.
    pub fn exercise(
        make: impl Fn() -> D,
        features: u64,
        steps: &[Step],
        step: impl Fn(&mut Self, Step),
        turn: impl Fn(&D) -> bool,
    ) -> Self {
        let mut bench = Self::new(make(), features);
        for one in steps.iter().take(Self::STEPS) {
            step(&mut bench, *one);
            if bench.notifier.has_failed() {
                assert!(!turn(&bench.device), "a device that needs a reset keeps working");
                bench = Self::new(make(), features);
            }
        }
        bench.restart();
        bench
    }
}
