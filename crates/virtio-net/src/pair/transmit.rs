//! From the driver to the backend.

use std::fmt;
use std::io::{self, ErrorKind};

use nerite_virtio::{Chain, Queue, QueueError, QueueState};

use super::{BATCH, Progress};
use crate::backend::{Backend, HEADER, MAX_FRAME};
use crate::counters::QueueCounters;
use crate::merge::{Group, Headers};

/// A frame of so many bytes is part of a stream if it is a TCP segment that can be merged,
const STREAM: u64 = 1_000;
/// or whatever it is: a segment that is still to be cut, in general.
const LARGE: u64 = 4_096;

/// The transmit queue of a pair.
pub(super) struct Transmitter {
    queue: Queue,
    chain: Chain,
    /// A frame in `chain` that the backend did not take yet.
    is_waiting: bool,
    /// Frames that go out as one, and their first descriptors and lengths. Between batches, if the
    /// backend did not take them yet.
    group: Group,
    heads: Vec<(u16, u64)>,
    /// The last request to the driver about notifications of frames. Without one it notifies
    /// (2.7.10).
    asked: Option<bool>,
    /// A part of a stream was sent since the last call of `set_stream`.
    streams: bool,
}

impl Transmitter {
    pub(super) fn new(queue: Queue) -> Self {
        Self {
            queue,
            chain: Chain::new(),
            is_waiting: false,
            group: Group::default(),
            heads: Vec::new(),
            asked: None,
            streams: false,
        }
    }

    /// Sends a batch of frames. Returns whether the driver is to be interrupted, and how it ended.
    pub(super) fn transmit(
        &mut self,
        backend: &mut dyn Backend,
        counters: &QueueCounters,
    ) -> Result<(bool, Progress), QueueError> {
        let given_back = self.queue.given_back();
        let mut progress = Progress::More;
        let mut has_yielded = false;
        for _ in 0..BATCH {
            if self.is_waiting {
                if !self.send_chain(backend, counters)? {
                    progress = Progress::Idle;
                    break;
                }
                continue;
            }
            if !self.queue.pop(&mut self.chain)? {
                if !self.send_group(backend, counters)? {
                    progress = Progress::Idle;
                    break;
                }
                // Where the driver runs on this very processor, it makes more frames of a stream
                // when it is let, and needs not say so.
                if self.streams && !has_yielded && self.queue.given_back() != given_back {
                    has_yielded = true;
                    std::thread::yield_now();
                    continue;
                }
                if self.asked != Some(true) {
                    self.asked = Some(true);
                    if self.queue.enable_kicks()? {
                        continue;
                    }
                }
                progress = Progress::Idle;
                break;
            }
            if self.asked != Some(false) {
                self.asked = Some(false);
                self.queue.disable_kicks()?;
            }
            if !self.take_chain(backend, counters)? {
                progress = Progress::Idle;
                break;
            }
        }
        if progress == Progress::More && !self.send_group(backend, counters)? {
            progress = Progress::Idle;
        }
        match backend.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                log::debug!("sending to the network: {error}");
            }
            _ => {}
        }
        let done = self.queue.given_back() != given_back;
        if done {
            backend.set_stream(std::mem::take(&mut self.streams));
        }
        Ok((done && self.queue.wants_interrupt()?, progress))
    }

    /// The progress of the queue. Frames that the backend did not take yet count as not taken here
    /// either.
    pub(super) fn state(&self) -> QueueState {
        let in_flight = self.heads.len().saturating_add(self.is_waiting.into());
        self.queue.state(u16::try_from(in_flight).unwrap_or(u16::MAX))
    }

    /// Puts the frame in `chain` into the group, or sends first the one and then the other. Returns
    /// whether all went.
    fn take_chain(
        &mut self,
        backend: &mut dyn Backend,
        counters: &QueueCounters,
    ) -> Result<bool, QueueError> {
        let bytes = self.chain.readable_bytes();
        let headers = if backend.merges() {
            Headers::read(self.queue.ram(), self.chain.readable(), bytes)
        } else {
            None
        };
        self.streams |= bytes >= if headers.is_some() { STREAM } else { LARGE };
        let joins =
            headers.as_ref().is_some_and(|headers| self.group.add(headers, self.chain.readable()));
        if !joins && !self.send_group(backend, counters)? {
            self.queue.undo_pop(1);
            return Ok(false);
        }
        match headers {
            // The group is empty by now, and takes any.
            Some(headers) if joins || self.group.add(&headers, self.chain.readable()) => {
                self.heads.push((self.chain.head(), bytes));
                Ok(true)
            }
            _ => self.send_chain(backend, counters),
        }
    }

    /// Sends the frame in `chain`. Returns whether it went, or was dropped, rather than having to
    /// wait.
    fn send_chain(
        &mut self,
        backend: &mut dyn Backend,
        counters: &QueueCounters,
    ) -> Result<bool, QueueError> {
        let bytes = self.chain.readable_bytes();
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        let sent = if (HEADER..=MAX_FRAME).contains(&length) {
            backend.send(self.queue.ram(), self.chain.readable())
        } else {
            Err(ErrorKind::InvalidInput.into())
        };
        self.is_waiting = has_to_wait(&sent);
        if !self.is_waiting {
            count(&sent, bytes, counters);
            self.queue.push(self.chain.head(), 0)?;
        }
        Ok(!self.is_waiting)
    }

    /// Sends the frames of the group as one. Returns whether they went, or were dropped, rather
    /// than having to wait.
    fn send_group(
        &mut self,
        backend: &mut dyn Backend,
        counters: &QueueCounters,
    ) -> Result<bool, QueueError> {
        let Some((headers, length)) = self.group.headers() else { return Ok(true) };
        let headers = headers.get(..length).unwrap_or_default();
        let sent = backend.send_built(headers, self.queue.ram(), self.group.pieces());
        if has_to_wait(&sent) {
            return Ok(false);
        }
        self.group.clear();
        for (head, bytes) in self.heads.drain(..) {
            count(&sent, bytes, counters);
            self.queue.push(head, 0)?;
        }
        Ok(true)
    }
}

impl fmt::Debug for Transmitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transmitter").field("queue", &self.queue).finish_non_exhaustive()
    }
}

fn has_to_wait(sent: &io::Result<()>) -> bool {
    matches!(sent, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Counts a frame that went or was dropped.
fn count(sent: &io::Result<()>, bytes: u64, counters: &QueueCounters) {
    match sent {
        Ok(()) => counters.packet(bytes.saturating_sub(HEADER as u64)),
        Err(error) => {
            log::debug!("a frame of {bytes} bytes is dropped: {error}");
            counters.drop_one();
        }
    }
}

#[cfg(test)]
#[path = "transmit_test.rs"]
#[allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod tests;
