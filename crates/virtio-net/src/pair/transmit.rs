//! From the driver to the backend.

use std::io::{self, ErrorKind};

use nerite_virtio::QueueError;

use super::{BATCH, LARGE, Pair, Progress, STREAM};
use crate::backend::{Backend, HEADER, MAX_FRAME};
use crate::counters::QueueCounters;
use crate::merge::Headers;

impl Pair {
    /// Sends a batch of frames. Returns whether the driver is to be interrupted, and how it ended.
    pub(crate) fn transmit(
        &mut self,
        backend: &mut dyn Backend,
        counters: &QueueCounters,
    ) -> Result<(bool, Progress), QueueError> {
        let given_back = self.tx.given_back();
        let mut progress = Progress::More;
        let mut has_yielded = false;
        for _ in 0..BATCH {
            if self.tx_waits {
                if !self.send_chain(backend, counters)? {
                    progress = Progress::Idle;
                    break;
                }
                continue;
            }
            if !self.tx.pop(&mut self.chain)? {
                if !self.send_group(backend, counters)? {
                    progress = Progress::Idle;
                    break;
                }
                // Where the driver runs on this very processor, it makes more frames of a stream when it is let, and needs not say so.
                if self.streams && !has_yielded && self.tx.given_back() != given_back {
                    has_yielded = true;
                    std::thread::yield_now();
                    continue;
                }
                if self.asked.1 != Some(true) {
                    self.asked.1 = Some(true);
                    if self.tx.enable_kicks()? {
                        continue;
                    }
                }
                progress = Progress::Idle;
                break;
            }
            if self.asked.1 != Some(false) {
                self.asked.1 = Some(false);
                self.tx.disable_kicks()?;
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
        let done = self.tx.given_back() != given_back;
        if done {
            backend.set_stream(std::mem::take(&mut self.streams));
        }
        Ok((done && self.tx.wants_interrupt()?, progress))
    }

    /// Puts the frame in `chain` into the group, or sends first the one and then the other. Returns whether all went.
    fn take_chain(
        &mut self,
        backend: &mut dyn Backend,
        counters: &QueueCounters,
    ) -> Result<bool, QueueError> {
        let bytes = self.chain.readable_bytes();
        let headers =
            if backend.merges() { Headers::read(self.tx.ram(), self.chain.readable(), bytes) } else { None };
        self.streams |= bytes >= if headers.is_some() { STREAM } else { LARGE };
        let joins = headers.as_ref().is_some_and(|headers| self.group.add(headers, self.chain.readable()));
        if !joins && !self.send_group(backend, counters)? {
            self.tx.undo_pop(1);
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

    /// Sends the frame in `chain`. Returns whether it went, or was dropped, rather than having to wait.
    fn send_chain(
        &mut self,
        backend: &mut dyn Backend,
        counters: &QueueCounters,
    ) -> Result<bool, QueueError> {
        let bytes = self.chain.readable_bytes();
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        let sent = if (HEADER..=MAX_FRAME).contains(&length) {
            backend.send(self.tx.ram(), self.chain.readable())
        } else {
            Err(ErrorKind::InvalidInput.into())
        };
        self.tx_waits = has_to_wait(&sent);
        if !self.tx_waits {
            count(&sent, bytes, counters);
            self.tx.push(self.chain.head(), 0)?;
        }
        Ok(!self.tx_waits)
    }

    /// Sends the frames of the group as one. Returns whether they went, or were dropped, rather than having to wait.
    fn send_group(
        &mut self,
        backend: &mut dyn Backend,
        counters: &QueueCounters,
    ) -> Result<bool, QueueError> {
        let Some((headers, length)) = self.group.headers() else { return Ok(true) };
        let headers = headers.get(..length).unwrap_or_default();
        let sent = backend.send_built(headers, self.tx.ram(), self.group.pieces());
        if has_to_wait(&sent) {
            return Ok(false);
        }
        self.group.clear();
        for (head, bytes) in self.heads.drain(..) {
            count(&sent, bytes, counters);
            self.tx.push(head, 0)?;
        }
        Ok(true)
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
