//! A queue in guest memory, seen from the guest.

use std::sync::Arc;

use nerite_memory::GuestRam;

use super::NEXT;
use crate::{QueueConfig, QueueState};

/// Addresses of a queue, and the number of entries that it is said to have.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "guest-physical addresses, and the number of entries")]
pub struct Rings {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

impl Rings {
    /// Rings of `size` entries one after the other from `address` on, which is a multiple of 4096.
    /// They take [`Rings::bytes`].
    #[must_use]
    pub fn at(address: u64, size: u16) -> Self {
        let available = address + 16 * u64::from(size);
        let used = (available + 6 + 2 * u64::from(size)).next_multiple_of(4);
        Self { size, descriptors: address, available, used }
    }

    /// Queue number `index` of at most `max_size` entries, enabled and new.
    #[must_use]
    pub fn config(&self, index: u16, max_size: u16) -> QueueConfig {
        let Self { size, descriptors, available, used } = *self;
        let progress = QueueState::default();
        QueueConfig { index, size, max_size, descriptors, available, used, progress }
    }

    /// Size in bytes of rings of `size` entries, in whole pages.
    #[must_use]
    pub fn bytes(size: u16) -> u64 {
        (26 * u64::from(size) + 16).next_multiple_of(4096)
    }
}

/// A descriptor: address, length, flags; [`NEXT`] is added where another one follows.
pub type Buffer = (u64, u32, u16);

/// A queue in guest memory, seen from the guest.
#[derive(Debug)]
pub struct FakeQueue {
    /// Its addresses.
    pub rings: Rings,
    pub(super) ram: Arc<GuestRam>,
    next_descriptor: u16,
    next_available: u16,
    next_used: u16,
}

impl FakeQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(ram: Arc<GuestRam>, rings: Rings) -> Self {
        Self { rings, ram, next_descriptor: 0, next_available: 0, next_used: 0 }
    }

    /// Writes descriptor `index` as it is.
    pub fn set_descriptor(&self, index: u16, (address, length, flags): Buffer, next: u16) {
        write_descriptor(
            &self.ram,
            self.rings.descriptors + 16 * u64::from(index),
            address,
            length,
            flags,
            next,
        );
    }

    /// Writes a chain and makes it available. Descriptors are taken in turn, so that there must not
    /// be more in use than there are. Returns the first one's number.
    pub fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let size = self.rings.size;
        let head = self.next_descriptor % size;
        for (position, (address, length, flags)) in buffers.iter().enumerate() {
            let index = self.next_descriptor % size;
            self.next_descriptor = (self.next_descriptor + 1) % size;
            let next = if position + 1 < buffers.len() { NEXT } else { 0 };
            self.set_descriptor(index, (*address, *length, flags | next), self.next_descriptor);
        }
        self.publish(head);
        head
    }

    /// Makes the chain at `head` available.
    pub fn publish(&mut self, head: u16) {
        let slot = u64::from(self.next_available % self.rings.size);
        self.store(self.rings.available + 4 + 2 * slot, head);
        self.next_available = self.next_available.wrapping_add(1);
        self.set_available_index(self.next_available);
    }

    /// Writes the available ring's index as it is.
    pub fn set_available_index(&self, index: u16) {
        self.store(self.rings.available + 2, index);
    }

    /// Says that no interrupts are wanted, or that they are.
    pub fn set_no_interrupt(&self, no: bool) {
        self.store(self.rings.available, no.into());
    }

    /// Says at which index of the used ring an interrupt is wanted (with EVENT_IDX).
    pub fn set_used_event(&self, index: u16) {
        self.store(self.rings.available + 4 + 2 * u64::from(self.rings.size), index);
    }

    /// The next request that the device has given back: first descriptor and bytes written.
    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        if self.load(self.rings.used + 2) == self.next_used {
            return None;
        }
        let slot = u64::from(self.next_used % self.rings.size);
        self.next_used = self.next_used.wrapping_add(1);
        let mut element = [0; 8];
        self.ram.read(self.rings.used + 4 + 8 * slot, &mut element).expect("a used ring in RAM");
        let [a, b, c, d, e, f, g, h] = element;
        Some((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
    }

    /// Returns `true` if the device wants to be notified of new requests (without EVENT_IDX).
    #[must_use]
    pub fn wants_kick(&self) -> bool {
        self.load(self.rings.used) & 1 == 0
    }

    /// The index of the available ring at which the device wants to be notified (with EVENT_IDX).
    #[must_use]
    pub fn available_event(&self) -> u16 {
        self.load(self.rings.used + 4 + 8 * u64::from(self.rings.size))
    }

    fn load(&self, address: u64) -> u16 {
        let mut bytes = [0; 2];
        self.ram.read(address, &mut bytes).expect("a ring in RAM");
        u16::from_le_bytes(bytes)
    }

    fn store(&self, address: u64, value: u16) {
        self.ram.write(address, &value.to_le_bytes()).expect("a ring in RAM");
    }
}

/// Writes a descriptor anywhere, as in an indirect table.
///
/// # Panics
/// If that is not RAM.
pub fn write_descriptor(ram: &GuestRam, at: u64, address: u64, length: u32, flags: u16, next: u16) {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    ram.write(at, &bytes).expect("a descriptor in RAM");
}
