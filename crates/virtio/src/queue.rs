//! A split virtqueue as a device uses it (virtio 1.2, 2.7).

use std::fmt;
use std::sync::Arc;

use nerite_memory::GuestRam;
use virtio_queue::{Queue as Rings, QueueOwnedT, QueueT};
use vm_memory::GuestAddress;

use crate::chain::Ring;
use crate::common::{QueueConfig, QueueState};
use crate::{Chain, ChainError, feature};

/// Available ring, flags: the driver wants no interrupts (2.7.7).
const NO_INTERRUPT: u16 = 1;

/// Violation of a queue's rules by the driver. The device needs a reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// A ring cannot be used: it is not in RAM, or says that it holds more than it can.
    #[error("queue {index}")]
    Ring {
        /// Which queue.
        index: u16,
        /// Broken rule.
        source: virtio_queue::Error,
    },
    /// A chain is malformed.
    #[error("queue {index}, chain at descriptor {head}")]
    Chain {
        /// Which queue.
        index: u16,
        /// The chain's first descriptor.
        head: u16,
        /// Broken rule.
        source: ChainError,
    },
}

/// A queue in use. One thread at a time has it.
pub struct Queue {
    ram: Arc<GuestRam>,
    rings: Rings,
    index: u16,
    /// The most descriptors of an indirect table, if those were negotiated.
    max_indirect: Option<u16>,
    /// The next request when the driver was last told to be silent, while it is to be.
    silent_from: Option<u16>,
}

impl Queue {
    /// A queue as the driver has set it up, which resumes at its saved progress.
    ///
    /// # Errors
    /// If `config` is not one that [`crate::Common::freeze`] lets pass.
    pub fn new(
        ram: Arc<GuestRam>,
        config: &QueueConfig,
        features: u64,
    ) -> Result<Self, QueueError> {
        let index = config.index;
        let ring = |source| QueueError::Ring { index, source };
        let mut rings = Rings::new(config.size).map_err(ring)?;
        rings.try_set_desc_table_address(GuestAddress(config.descriptors)).map_err(ring)?;
        rings.try_set_avail_ring_address(GuestAddress(config.available)).map_err(ring)?;
        rings.try_set_used_ring_address(GuestAddress(config.used)).map_err(ring)?;
        rings.set_event_idx(features & feature::EVENT_IDX != 0);
        rings.set_next_avail(config.progress.next_available);
        rings.set_next_used(config.progress.next_used);
        rings.set_ready(true);
        let max_indirect = (features & feature::INDIRECT_DESC != 0).then_some(config.max_size);
        Ok(Self { ram, rings, index, max_indirect, silent_from: None })
    }

    /// The queue's number.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Number of entries.
    pub fn size(&self) -> u16 {
        self.rings.size()
    }

    /// The memory it lies in.
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// Takes the next request, if there is one, into `chain`.
    ///
    /// # Errors
    /// If the ring or the chain is malformed.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let index = self.index;
        let mut available = self
            .rings
            .iter(self.ram.inner())
            .map_err(|source| QueueError::Ring { index, source })?;
        let Some(head) = available.next().map(|chain| chain.head_index()) else { return Ok(false) };
        let ring = Ring {
            descriptors: self.rings.desc_table(),
            size: self.rings.size(),
            max_indirect: self.max_indirect,
        };
        chain.take(&self.ram, &ring, head).map_err(|source| QueueError::Chain {
            index,
            head,
            source,
        })?;
        let moved = self.silent_from.map(|from| self.rings.next_avail().wrapping_sub(from));
        if moved.is_some_and(|moved| moved > self.rings.size() / 2) {
            self.disable_kicks()?;
        }
        Ok(true)
    }

    /// Puts back the last `count` requests that were taken and not given back: they come again.
    pub fn undo_pop(&mut self, count: u16) {
        let next = self.rings.next_avail().wrapping_sub(count);
        self.rings.set_next_avail(next);
    }

    /// The progress, as if the last `in_flight` requests had not been taken yet. Requests before
    /// those must have been given back.
    pub fn state(&self, in_flight: u16) -> QueueState {
        QueueState {
            next_available: self.rings.next_avail().wrapping_sub(in_flight),
            next_used: self.rings.next_used(),
        }
    }

    /// Number of requests given back so far, modulo 65536.
    pub fn given_back(&self) -> u16 {
        self.rings.next_used()
    }

    /// Gives a request back, of which `written` bytes were written.
    ///
    /// # Errors
    /// If the ring is no longer there.
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        let index = self.index;
        self.rings
            .add_used(self.ram.inner(), head, written)
            .map_err(|source| QueueError::Ring { index, source })
    }

    /// Returns `true` if the driver wants an interrupt for the buffers returned since the last call
    /// (2.7.7.2).
    ///
    /// # Errors
    /// If the ring is no longer there.
    pub fn wants_interrupt(&mut self) -> Result<bool, QueueError> {
        let index = self.index;
        let ring = |source| QueueError::Ring { index, source };
        if !self.rings.needs_notification(self.ram.inner()).map_err(ring)? {
            return Ok(false);
        }
        if self.rings.event_idx_enabled() {
            return Ok(true);
        }
        let mut flags = [0; 2];
        let read = self.ram.read(self.rings.avail_ring(), &mut flags);
        read.map_err(|_| ring(virtio_queue::Error::FindMemoryRegion))?;
        Ok(u16::from_le_bytes(flags) & NO_INTERRUPT == 0)
    }

    /// Asks the driver to notify the device of new requests. Returns whether some have come before
    /// it could know.
    ///
    /// # Errors
    /// If the ring is no longer there.
    pub fn enable_kicks(&mut self) -> Result<bool, QueueError> {
        let index = self.index;
        self.silent_from = None;
        self.rings
            .enable_notification(self.ram.inner())
            .map_err(|source| QueueError::Ring { index, source })
    }

    /// Tells the driver that notifications are not needed, until they are enabled again.
    ///
    /// # Errors
    /// If the ring is no longer there.
    pub fn disable_kicks(&mut self) -> Result<(), QueueError> {
        let index = self.index;
        let ring = |source| QueueError::Ring { index, source };
        if !self.rings.event_idx_enabled() {
            return self.rings.disable_notification(self.ram.inner()).map_err(ring);
        }
        // To leave the field behind would do (2.7.10), but some drivers notify of everything after
        // the request it names. So it names one that the driver cannot come to before it is moved
        // on: there is half a queue to be taken until then, and it may have a whole one ahead.
        let (next, size) = (self.rings.next_avail(), self.rings.size());
        self.silent_from = Some(next);
        let event = next.wrapping_add(size).wrapping_add(size / 2).wrapping_add(1);
        let offset = u64::from(size).saturating_mul(8).saturating_add(4);
        let at = self.rings.used_ring().saturating_add(offset);
        self.ram
            .write(at, &event.to_le_bytes())
            .map_err(|_| ring(virtio_queue::Error::FindMemoryRegion))
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("index", &self.index)
            .field("rings", &self.rings)
            .finish_non_exhaustive()
    }
}
