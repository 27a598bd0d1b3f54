//! The data path of one queue pair.

use nerite_virtio::{Queue, QueueError, QueueState};

use crate::backend::Backend;
use crate::counters::QueueCounters;

mod receive;
mod transmit;

use receive::Receiver;
use transmit::Transmitter;

/// Frames in a batch. After one, other things get their turn.
const BATCH: u32 = 128;

/// End of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is nothing to do until the driver or the backend says so.
    Idle,
    /// There may be more to do at once.
    More,
}

/// One queue pair in use, without thread and backend. A driver need not have enabled both queues.
#[derive(Debug)]
pub struct Pair {
    receiver: Option<Receiver>,
    transmitter: Option<Transmitter>,
}

impl Pair {
    /// The queues of a pair, for a driver that accepted `features`; `mtu` is the largest packet, if
    /// that is known.
    #[must_use]
    pub fn new(rx: Option<Queue>, tx: Option<Queue>, features: u64, mtu: Option<u16>) -> Self {
        Self {
            receiver: rx.map(|queue| Receiver::new(queue, features, mtu)),
            transmitter: tx.map(Transmitter::new),
        }
    }

    /// The progress of both queues: receive, then transmit.
    pub(crate) fn states(&self) -> [Option<QueueState>; 2] {
        [
            self.receiver.as_ref().map(Receiver::state),
            self.transmitter.as_ref().map(Transmitter::state),
        ]
    }

    /// Receives a batch of frames. Returns whether the driver is to be interrupted, and how it
    /// ended.
    pub(crate) fn receive(
        &mut self,
        backend: &mut dyn Backend,
        counters: &QueueCounters,
    ) -> Result<(bool, Progress), QueueError> {
        let idle = Ok((false, Progress::Idle));
        self.receiver.as_mut().map_or(idle, |receiver| receiver.receive(backend, counters))
    }

    /// Sends a batch of frames. Returns whether the driver is to be interrupted, and how it ended.
    pub(crate) fn transmit(
        &mut self,
        backend: &mut dyn Backend,
        counters: &QueueCounters,
    ) -> Result<(bool, Progress), QueueError> {
        let idle = Ok((false, Progress::Idle));
        self.transmitter
            .as_mut()
            .map_or(idle, |transmitter| transmitter.transmit(backend, counters))
    }
}

#[cfg(test)]
#[path = "pair_test.rs"]
#[allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod tests;
