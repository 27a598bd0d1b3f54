//! From the backend to the driver.

use std::fmt;
use std::io::ErrorKind;

use nerite_virtio::{Chain, Queue, QueueError, QueueState, Segment};

use super::{BATCH, Progress};
use crate::backend::{Backend, HEADER, MAX_FRAME, write_across};
use crate::counters::QueueCounters;
use crate::feature;

/// Offset of `num_buffers` in the header (5.1.6).
const NUM_BUFFERS: u64 = 10;
/// Segments that are still to be cut: what kind, without the bit for ECN (5.1.6).
const GSO_KIND: u8 = 0x7f;
/// The EtherType of a tag, which makes the Ethernet header 4 bytes longer.
const TAG: [u8; 2] = [0x81, 0];
/// Receive buffers are gathered until they have this many pieces. With one more chain that is still
/// less than the 1024 that a vectored read takes.
const MAX_PIECES: usize = 512;
/// Bytes of a frame before its packet: the two headers. One with a tag is 4 bytes longer, is rare,
/// and finds room all the same; drivers that have counted make their buffers as long as this
/// (Hermit's have 1526 bytes).
const HEADERS: u64 = HEADER as u64 + 14;
/// The largest packet of a card without a known MTU.
const DEFAULT_MTU: u16 = 9_000;

/// A receive buffer in hand.
#[derive(Debug, Clone, Copy)]
struct Buffer {
    head: u16,
    bytes: u64,
    pieces: usize,
}

/// Receive buffers that were taken from the driver and wait for a frame.
#[derive(Debug, Default)]
struct Room {
    pieces: Vec<Segment>,
    buffers: Vec<Buffer>,
    bytes: u64,
}

/// The receive queue of a pair.
pub(super) struct Receiver {
    queue: Queue,
    room: Room,
    chain: Chain,
    /// The last request to the driver about notifications of buffers. Without one it notifies
    /// (2.7.10).
    asked: Option<bool>,
    mergeable: bool,
    /// The driver takes frames whose checksum is not complete.
    takes_partial: bool,
    /// The largest frame with its header, without a tag, if the driver knows the largest packet.
    limit: Option<u64>,
    /// Bytes of buffers to have in hand before a frame is received.
    wanted: u64,
    spill: Vec<u8>,
    /// Length of a frame that was received and is larger than the buffers in hand; what is too much
    /// is in `spill`.
    waiting: usize,
}

impl Receiver {
    pub(super) fn new(queue: Queue, features: u64, mtu: Option<u16>) -> Self {
        let large = features & (feature::GUEST_TSO4 | feature::GUEST_TSO6) != 0;
        let wanted = if large {
            u64::try_from(MAX_FRAME).unwrap_or(u64::MAX)
        } else {
            u64::from(mtu.unwrap_or(DEFAULT_MTU)).saturating_add(HEADERS)
        };
        Self {
            queue,
            room: Room::default(),
            chain: Chain::new(),
            asked: None,
            mergeable: features & feature::MRG_RXBUF != 0,
            takes_partial: features & feature::GUEST_CSUM != 0,
            limit: mtu
                .filter(|_| features & feature::MTU != 0)
                .map(|mtu| u64::from(mtu).saturating_add(HEADERS)),
            wanted,
            spill: vec![0; MAX_FRAME],
            waiting: 0,
        }
    }

    /// Receives a batch of frames. Returns whether the driver is to be interrupted, and how it
    /// ended.
    pub(super) fn receive(
        &mut self,
        backend: &mut dyn Backend,
        counters: &QueueCounters,
    ) -> Result<(bool, Progress), QueueError> {
        let mut progress = Progress::More;
        let mut delivered = false;
        for _ in 0..BATCH {
            if self.waiting == 0 {
                if !self.fill(self.wanted, counters)? && self.room.buffers.is_empty() {
                    progress = Progress::Idle;
                    break;
                }
                match backend.receive(self.queue.ram(), &self.room.pieces, &mut self.spill) {
                    Ok(length) if length < HEADER || self.exceeds_mtu(length) => {
                        counters.drop_one();
                        continue;
                    }
                    Ok(length) => self.waiting = length,
                    Err(error) => {
                        if error.kind() != ErrorKind::WouldBlock {
                            log::debug!("receiving from the network: {error}");
                        }
                        progress = Progress::Idle;
                        break;
                    }
                }
            }
            match self.deliver(counters)? {
                Some(is_delivered) => delivered |= is_delivered,
                None => {
                    progress = Progress::Idle;
                    break;
                }
            }
        }
        Ok((delivered && self.queue.wants_interrupt()?, progress))
    }

    /// The progress of the queue. Buffers in hand count as not taken yet, and a frame that waits
    /// for more of them as lost.
    pub(super) fn state(&self) -> QueueState {
        // Not more than the queue has.
        self.queue.state(u16::try_from(self.room.buffers.len()).unwrap_or(u16::MAX))
    }

    /// Takes buffers from the driver until there are `wanted` bytes. Returns whether there are; if
    /// not, the driver was asked to notify of new ones.
    fn fill(&mut self, wanted: u64, counters: &QueueCounters) -> Result<bool, QueueError> {
        let size = usize::from(self.queue.size());
        let is_enough = |room: &Room, mergeable: bool| {
            let one_is_all = !mergeable && !room.buffers.is_empty();
            let is_full = room.pieces.len() >= MAX_PIECES || room.buffers.len() >= size;
            one_is_all || room.bytes >= wanted || is_full
        };
        while !is_enough(&self.room, self.mergeable) {
            let chain = &mut self.chain;
            if !self.queue.pop(chain)? {
                if self.asked != Some(true) {
                    self.asked = Some(true);
                    if self.queue.enable_kicks()? {
                        continue;
                    }
                }
                return Ok(false);
            }
            // With EVENT_IDX the driver was asked to notify of this one only (2.7.10).
            if self.asked == Some(true) {
                self.asked = None;
            }
            let (head, pieces) = (chain.head(), chain.writable());
            if pieces.is_empty() {
                counters.drop_one();
                // Behind others it waits: buffers are given back in their order, so that those in
                // hand are always the last that were taken.
                if self.room.buffers.is_empty() {
                    self.queue.push(head, 0)?;
                    continue;
                }
            }
            let buffer = Buffer { head, bytes: chain.writable_bytes(), pieces: pieces.len() };
            self.room.pieces.extend_from_slice(pieces);
            self.room.bytes = self.room.bytes.saturating_add(buffer.bytes);
            self.room.buffers.push(buffer);
        }
        if self.asked != Some(false) {
            self.asked = Some(false);
            self.queue.disable_kicks()?;
        }
        Ok(true)
    }

    /// `true` if the driver is not to get the frame of `length` bytes that was just received
    /// (5.1.4.1): it is larger than the largest packet, and no segment that is still to be cut.
    fn exceeds_mtu(&self, length: usize) -> bool {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let Some(limit) = self.limit.filter(|limit| length > *limit) else { return false };
        let mut start = [0; HEADER + 14];
        let mut rest = &mut start[..];
        for piece in &self.room.pieces {
            let length = rest.len().min(piece.length.try_into().unwrap_or(usize::MAX));
            let (now, later) = rest.split_at_mut(length);
            // It was in RAM when it was taken, and RAM does not go away.
            let _ = self.queue.ram().read(piece.address, now);
            rest = later;
        }
        rest.iter_mut().zip(&self.spill).for_each(|(to, from)| *to = *from);
        let [_, kind, .., tag0, tag1] = start;
        let limit = if [tag0, tag1] == TAG { limit.saturating_add(4) } else { limit };
        kind & GSO_KIND == 0 && length > limit
    }

    /// Gives the frame that was received to the driver. Returns whether it did or dropped it, or
    /// `None` if buffers are missing.
    fn deliver(&mut self, counters: &QueueCounters) -> Result<Option<bool>, QueueError> {
        let length = u64::try_from(self.waiting).unwrap_or(u64::MAX);
        let before = self.room.bytes;
        if length > before {
            let fits = self.mergeable && length <= before.saturating_add(self.spill.len() as u64);
            let can_grow = self.room.buffers.len() < usize::from(self.queue.size())
                && self.room.pieces.len() < MAX_PIECES;
            if !fits || !can_grow {
                self.waiting = 0;
                counters.drop_one();
                return Ok(Some(false));
            }
            self.rescue(length, counters)?;
            if length > self.room.bytes {
                return Ok(None);
            }
        }
        self.waiting = 0;
        let used = self.count_used(length);
        let [low, high] = u16::try_from(used).unwrap_or(u16::MAX).to_le_bytes();
        let header = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low, high];
        // A driver that knows nothing of checksums finds zeroes there (5.1.6.4.1), whatever a host
        // says of a frame it has checked.
        let (at, bytes) =
            if self.takes_partial { (NUM_BUFFERS, &header[10..]) } else { (0, &header[..]) };
        // The pieces were in RAM when they were taken, and RAM does not go away.
        let _ = write_across(self.queue.ram(), &self.room.pieces, at, bytes);
        let mut rest = length;
        let mut pieces: usize = 0;
        for buffer in self.room.buffers.drain(..used) {
            let written = rest.min(buffer.bytes);
            rest = rest.saturating_sub(written);
            pieces = pieces.saturating_add(buffer.pieces);
            self.room.bytes = self.room.bytes.saturating_sub(buffer.bytes);
            self.queue.push(buffer.head, u32::try_from(written).unwrap_or(u32::MAX))?;
        }
        self.room.pieces.drain(..pieces.min(self.room.pieces.len()));
        counters.packet(length.saturating_sub(HEADER as u64));
        Ok(Some(true))
    }

    /// Takes more buffers for a frame that is too long for those in hand, and copies to them what
    /// was kept.
    fn rescue(&mut self, length: u64, counters: &QueueCounters) -> Result<(), QueueError> {
        let before = self.room.bytes;
        self.fill(length, counters)?;
        let over = usize::try_from(length.saturating_sub(before)).unwrap_or(usize::MAX);
        if let Some(kept) = self.spill.get(..over) {
            let _ = write_across(self.queue.ram(), &self.room.pieces, before, kept);
        }
        // What was copied now is no longer to be kept; the rest moves up.
        let copied =
            usize::try_from(self.room.bytes.saturating_sub(before)).unwrap_or(usize::MAX).min(over);
        if copied > 0 && copied < over {
            self.spill.copy_within(copied..over, 0);
        }
        Ok(())
    }

    /// The number of buffers in hand that a frame of `length` bytes fills.
    fn count_used(&self, length: u64) -> usize {
        let mut rest = length;
        let mut used: usize = 0;
        for buffer in &self.room.buffers {
            if rest == 0 {
                break;
            }
            rest = rest.saturating_sub(buffer.bytes);
            used = used.saturating_add(1);
        }
        used
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("queue", &self.queue).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "receive_test.rs"]
mod tests;
