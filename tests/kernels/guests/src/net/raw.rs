//! A virtio device driven by hand, a network card first of all: each register by itself, and rings
//! that hold whatever is put there.

use alloc::alloc::{Layout, alloc_zeroed};

use runtime::mmio;
use runtime::paging::{PAGE, map_identity};
use runtime::prelude::*;

extern crate alloc;

/// Descriptor flags (virtio 1.2, 2.7.5).
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Bits of the device status (2.1).
pub(crate) const ACKNOWLEDGE: u8 = 1;
pub(crate) const DRIVER: u8 = 2;
pub(crate) const DRIVER_OK: u8 = 4;
pub(crate) const FEATURES_OK: u8 = 8;
pub(crate) const NEEDS_RESET: u8 = 64;
/// Device status of a driver that is ready.
pub(crate) const READY: u8 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

/// Features (5.1.3 and 6).
pub(crate) const CTRL_VQ: u64 = 1 << 17;
pub(crate) const INDIRECT_DESC: u64 = 1 << 28;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const VERSION_1: u64 = 1 << 32;

/// Offsets in the common configuration (4.1.4.3).
pub(crate) const FEATURE_SELECT: u64 = 0;
pub(crate) const FEATURE: u64 = 4;
pub(crate) const ACCEPT_SELECT: u64 = 8;
pub(crate) const ACCEPT: u64 = 12;
pub(crate) const STATUS: u64 = 20;
pub(crate) const QUEUE_SELECT: u64 = 22;
pub(crate) const QUEUE_SIZE: u64 = 24;
pub(crate) const QUEUE_ENABLE: u64 = 28;
pub(crate) const QUEUE_DESC: u64 = 32;
pub(crate) const QUEUE_DRIVER: u64 = 40;
pub(crate) const QUEUE_DEVICE: u64 = 48;

/// Zeroed pages that are never freed.
pub(crate) fn pages(count: u64) -> u64 {
    let layout =
        Layout::from_size_align((count * PAGE) as usize, PAGE as usize).expect("a number of pages");
    // SAFETY: the layout is not empty: the number of pages is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    check!(!memory.is_null(), "no memory for {count} pages");
    memory.addr() as u64
}

/// Most time in microseconds that one look can take of a wait.
const LOOK: u64 = 1_000;

/// Waits until `look` finds something, this long at most. Time in which the host runs other things
/// than this processor counts as next to nothing: the card's side may have had none of it.
pub(crate) fn wait<T>(micros: u64, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let per_micro = boot::tsc_khz() / 1000;
    let mut left = micros * per_micro;
    let mut last = cpu::tsc();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        let now = cpu::tsc();
        left = left.checked_sub((now - last).min(LOOK * per_micro))?;
        last = now;
        core::hint::spin_loop();
    }
}

/// The card's registers.
#[derive(Clone, Copy)]
pub(crate) struct Registers {
    slot: u32,
    pub(crate) bar: u64,
    pub(crate) common: u64,
    isr: u64,
    device: u64,
    pub(crate) notify: u64,
    multiplier: u64,
    /// The table of MSI-X vectors, and the offset of message control.
    pub(crate) vectors: u64,
    pub(crate) msix: u32,
}

impl Registers {
    /// The first virtio network card on bus 0.
    pub(crate) fn find() -> Option<Self> {
        Self::find_kind(1)
    }

    /// The first virtio device of this kind (5) on bus 0, as its capabilities describe it (4.1.4).
    pub(crate) fn find_kind(kind: u32) -> Option<Self> {
        let id = (0x1040 + kind) << 16 | 0x1af4;
        let slot = (0..32).find(|slot| Self::at(*slot).config(0, 4) == id)?;
        let mut card = Self::at(slot);
        card.set_config(4, 2, 6);
        card.bar = u64::from(card.config(0x10, 4) & !0xf) | u64::from(card.config(0x14, 4)) << 32;
        map_identity(card.bar, card.bar + 0x8000);
        let mut at = card.config(0x34, 1);
        while at != 0 {
            let id = card.config(at, 1);
            let place = card.bar + u64::from(card.config(at + 8, 4));
            match (id, card.config(at + 3, 1)) {
                (9, 1) => card.common = place,
                (9, 2) => {
                    card.notify = place;
                    card.multiplier = card.config(at + 16, 4).into();
                }
                (9, 3) => card.isr = place,
                (9, 4) => card.device = place,
                (0x11, _) => {
                    card.msix = at + 2;
                    card.vectors = card.bar + u64::from(card.config(at + 4, 4) & !7);
                }
                _ => {}
            }
            at = card.config(at + 1, 1);
        }
        Some(card)
    }

    fn at(slot: u32) -> Self {
        Self {
            slot,
            bar: 0,
            common: 0,
            isr: 0,
            device: 0,
            notify: 0,
            multiplier: 0,
            vectors: 0,
            msix: 0,
        }
    }

    /// Reads configuration space.
    pub(crate) fn config(&self, at: u32, width: u32) -> u32 {
        cpu::out32(0xcf8, 1 << 31 | self.slot << 11 | at & 0xfc);
        let port = 0xcfc + (at & 3) as u16;
        match width {
            1 => cpu::in8(port).into(),
            2 => cpu::in16(port).into(),
            _ => cpu::in32(port),
        }
    }

    /// Writes configuration space.
    pub(crate) fn set_config(&self, at: u32, width: u32, value: u32) {
        cpu::out32(0xcf8, 1 << 31 | self.slot << 11 | at & 0xfc);
        let port = 0xcfc + (at & 3) as u16;
        match width {
            1 => cpu::out8(port, value as u8),
            2 => cpu::out16(port, value as u16),
            _ => cpu::out32(port, value),
        }
    }

    /// The card's address (5.1.4).
    pub(crate) fn mac(&self) -> [u8; 6] {
        core::array::from_fn(|at| mmio::read8(self.device + at as u64))
    }

    pub(crate) fn status(&self) -> u8 {
        mmio::read8(self.common + STATUS)
    }

    pub(crate) fn set_status(&self, status: u8) {
        mmio::write8(self.common + STATUS, status);
    }

    /// ISR status, which reading clears.
    pub(crate) fn isr(&self) -> u8 {
        mmio::read8(self.isr)
    }

    /// Resets the card, and waits as 4.1.4.3.2 says.
    pub(crate) fn reset(&self) {
        self.set_status(0);
        let done = wait(1_000_000, || (self.status() == 0).then_some(()));
        check!(done.is_some(), "a reset is not done after a second");
    }

    /// The handshake up to the features (3.1.1). Returns which were agreed on.
    pub(crate) fn negotiate(&self, wanted: u64) -> u64 {
        self.reset();
        self.set_status(ACKNOWLEDGE);
        self.set_status(ACKNOWLEDGE | DRIVER);
        let mut agreed = 0;
        for word in 0..2u32 {
            mmio::write32(self.common + FEATURE_SELECT, word);
            let offered = mmio::read32(self.common + FEATURE);
            let accepted = offered & (wanted >> (32 * word)) as u32;
            mmio::write32(self.common + ACCEPT_SELECT, word);
            mmio::write32(self.common + ACCEPT, accepted);
            agreed |= u64::from(accepted) << (32 * word);
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        check_eq!(
            self.status(),
            ACKNOWLEDGE | DRIVER | FEATURES_OK,
            "the status after the features"
        );
        agreed
    }

    /// Describes queue `index`, and enables it.
    pub(crate) fn set_queue(
        &self,
        index: u16,
        size: u16,
        [descriptors, available, used]: [u64; 3],
    ) {
        mmio::write16(self.common + QUEUE_SELECT, index);
        mmio::write16(self.common + QUEUE_SIZE, size);
        mmio::write64(self.common + QUEUE_DESC, descriptors);
        mmio::write64(self.common + QUEUE_DRIVER, available);
        mmio::write64(self.common + QUEUE_DEVICE, used);
        mmio::write16(self.common + QUEUE_ENABLE, 1);
    }

    pub(crate) fn kick(&self, index: u16) {
        mmio::write16(self.notify + self.multiplier * u64::from(index), index);
    }
}

/// A descriptor: address, length, flags, next.
pub(crate) type Descriptor = (u64, u32, u16, u16);

/// Writes a descriptor to a table.
pub(crate) fn set_descriptor(table: u64, index: u16, (address, length, flags, next): Descriptor) {
    let at = table + 16 * u64::from(index);
    mmio::write64(at, address);
    mmio::write32(at + 8, length);
    mmio::write16(at + 12, flags);
    mmio::write16(at + 14, next);
}

/// A queue in memory: a page for each of its parts.
pub(crate) struct Ring {
    pub(crate) parts: [u64; 3],
    /// Index of the next request, and of the next answer.
    available: u16,
    used: u16,
}

/// Entries of a queue.
pub(crate) const SIZE: u16 = 16;

impl Ring {
    pub(crate) fn new() -> Self {
        Self { parts: [pages(1), pages(1), pages(1)], available: 0, used: 0 }
    }

    /// As new.
    pub(crate) fn clear(&mut self) {
        for part in self.parts {
            (0..PAGE / 8).for_each(|word| mmio::write64(part + 8 * word, 0));
        }
        (self.available, self.used) = (0, 0);
    }

    pub(crate) fn set(&self, index: u16, descriptor: Descriptor) {
        set_descriptor(self.parts[0], index, descriptor);
    }

    /// Makes the chain at `head` available.
    pub(crate) fn publish(&mut self, head: u16) {
        mmio::write16(self.parts[1] + 4 + 2 * u64::from(self.available % SIZE), head);
        self.available = self.available.wrapping_add(1);
        self.set_available(self.available);
    }

    /// The index of the available ring, as it is.
    pub(crate) fn set_available(&self, index: u16) {
        mmio::write16(self.parts[1] + 2, index);
    }

    /// The number of chains that were made available.
    pub(crate) fn published(&self) -> u16 {
        self.available
    }

    /// `true` if another chain fits into the rings.
    pub(crate) fn has_room(&self) -> bool {
        self.available.wrapping_sub(self.used_index()) < SIZE
    }

    /// The index of the used ring.
    pub(crate) fn used_index(&self) -> u16 {
        mmio::read16(self.parts[2] + 2)
    }

    /// Takes the next used buffer: first descriptor and bytes.
    pub(crate) fn take_used(&mut self) -> Option<(u32, u32)> {
        if self.used_index() == self.used {
            return None;
        }
        let at = self.parts[2] + 4 + 8 * u64::from(self.used % SIZE);
        self.used = self.used.wrapping_add(1);
        Some((mmio::read32(at), mmio::read32(at + 4)))
    }

    /// Waits for what is given back next.
    pub(crate) fn wait_used(&mut self) -> Option<(u32, u32)> {
        wait(2_000_000, || self.take_used())
    }
}
