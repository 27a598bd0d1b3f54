//! Counters of a card.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one queue. Only its thread counts; every thread can read.
#[derive(Debug, Default)]
pub struct QueueCounters {
    packets: AtomicU64,
    bytes: AtomicU64,
    kicks: AtomicU64,
    interrupts: AtomicU64,
    drops: AtomicU64,
}

/// Counts of one queue at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Frames that went through.
    pub packets: u64,
    /// Their bytes, without virtio's header.
    pub bytes: u64,
    /// Notifications by the driver.
    pub kicks: u64,
    /// Interrupts of the driver.
    pub interrupts: u64,
    /// Frames that were dropped.
    pub drops: u64,
}

impl QueueCounters {
    /// The counts so far.
    pub fn totals(&self) -> Totals {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            packets: of(&self.packets),
            bytes: of(&self.bytes),
            kicks: of(&self.kicks),
            interrupts: of(&self.interrupts),
            drops: of(&self.drops),
        }
    }

    pub(crate) fn packet(&self, bytes: u64) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn kick(&self) {
        self.kicks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn drop_one(&self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts of all queues of a card: receive and transmit queues in turn.
#[derive(Debug)]
pub struct Counters {
    queues: Box<[QueueCounters]>,
}

impl Counters {
    pub(crate) fn new(pairs: u16) -> Self {
        let queues = usize::from(pairs).saturating_mul(2);
        Self { queues: (0..queues).map(|_| QueueCounters::default()).collect() }
    }

    /// The counts of each queue: 0 receives, 1 transmits, 2 receives, ...
    pub fn queues(&self) -> impl Iterator<Item = Totals> + '_ {
        self.queues.iter().map(QueueCounters::totals)
    }

    pub(crate) fn queue(&self, index: u16) -> Option<&QueueCounters> {
        self.queues.get(usize::from(index))
    }
}

impl fmt::Display for Counters {
    /// One line for each queue that was used.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (index, queue) in
            self.queues().enumerate().filter(|(_, queue)| *queue != Totals::default())
        {
            let what = if index.is_multiple_of(2) { "receive" } else { "transmit" };
            let Totals { packets, bytes, kicks, interrupts, drops } = queue;
            write!(
                f,
                "{separator}queue {index} ({what}): {packets} packets, {bytes} bytes, {kicks} kicks, \
                 {interrupts} interrupts, {drops} drops"
            )?;
            separator = "\n";
        }
        Ok(())
    }
}
