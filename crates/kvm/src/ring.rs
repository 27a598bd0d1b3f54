//! KVM's ring of coalesced writes (KVM API, 4.116, `KVM_REGISTER_COALESCED_MMIO`) as
//! [`CoalescedWrites`].

use std::fmt;
use std::mem::offset_of;
use std::ops::ControlFlow;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kvm_bindings::{kvm_coalesced_mmio, kvm_coalesced_mmio_ring};
use nerite_hypervisor::{CoalescedWrite, CoalescedWrites};
use parking_lot::Mutex;

use crate::pages::{PAGE, SharedPages};

/// Number of entries that the page has room for (`KVM_COALESCED_MMIO_MAX`). The ring is full with
/// one less.
#[allow(clippy::cast_possible_truncation, reason = "a page holds fewer than 4096 of them")]
const ENTRIES: u32 =
    ((PAGE - size_of::<kvm_coalesced_mmio_ring>()) / size_of::<kvm_coalesced_mmio>()) as u32;

/// The ring of a VM. KVM writes entries and `last`; the one reader there is at a time writes
/// `first`.
pub(crate) struct Ring {
    pages: Arc<SharedPages>,
    /// Held by the reader.
    reader: Mutex<()>,
    /// Number of entries that were read.
    taken: AtomicU64,
}

impl Ring {
    /// The ring of the VM that the vCPU of these pages belongs to. There must be no second one for
    /// the same VM.
    pub(crate) fn new(pages: Arc<SharedPages>) -> Self {
        Self { pages, reader: Mutex::new(()), taken: AtomicU64::new(0) }
    }

    fn index(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: both indices lie in the ring's page.
        let at = unsafe { self.pages.ring().add(offset) };
        // SAFETY: it is aligned, mapped for as long as `self`, and accessed from here through
        // atomics only.
        unsafe { AtomicU32::from_ptr(at.as_ptr().cast()) }
    }

    fn first(&self) -> &AtomicU32 {
        self.index(offset_of!(kvm_coalesced_mmio_ring, first))
    }

    /// Position up to which KVM has written. The entries before it can be read after this.
    fn last(&self) -> u32 {
        self.index(offset_of!(kvm_coalesced_mmio_ring, last)).load(Ordering::Acquire)
    }

    /// Copies entry number `at`, which must be between `first` and `last`: KVM leaves those alone.
    fn entry(&self, at: u32) -> Option<kvm_coalesced_mmio> {
        if at >= ENTRIES {
            return None;
        }
        let offset = offset_of!(kvm_coalesced_mmio_ring, coalesced_mmio);
        // SAFETY: the entries begin there in the ring's page.
        let entries: NonNull<kvm_coalesced_mmio> = unsafe { self.pages.ring().add(offset) }.cast();
        // SAFETY: the page has room for ENTRIES entries, and `at` is below that.
        let entry = unsafe { entries.add(at as usize) };
        // SAFETY: the entry is aligned, mapped, and any bytes are a valid one.
        Some(unsafe { entry.read_volatile() })
    }

    /// Reads up to where `last` was at the beginning, so that a guest that keeps writing does not
    /// keep a reader busy indefinitely.
    fn read(&self, each: &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>) {
        let last = self.last();
        let mut at = self.first().load(Ordering::Relaxed);
        while at != last {
            let Some(entry) = self.entry(at) else { return };
            if each(write(&entry)).is_break() {
                return;
            }
            at = at.wrapping_add(1).checked_rem(ENTRIES).unwrap_or(0);
            self.taken.fetch_add(1, Ordering::Relaxed);
            // Only now is the entry done: see `is_empty`.
            self.first().store(at, Ordering::Release);
        }
    }
}

fn write(entry: &kvm_coalesced_mmio) -> CoalescedWrite {
    let [a, b, c, d, ..] = entry.data;
    let width = entry.len.min(4);
    let kept = u32::MAX.checked_shr(32_u32.saturating_sub(width.saturating_mul(8))).unwrap_or(0);
    CoalescedWrite {
        port: u16::try_from(entry.phys_addr).unwrap_or(u16::MAX),
        width: u8::try_from(width).unwrap_or(4),
        value: u32::from_le_bytes([a, b, c, d]) & kept,
    }
}

impl CoalescedWrites for Ring {
    fn is_empty(&self) -> bool {
        self.first().load(Ordering::Acquire) == self.last()
    }

    fn take(&self, each: &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>) {
        let _reader = self.reader.lock();
        self.read(each);
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn try_take(&self, each: &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>) {
        let Some(_reader) = self.reader.try_lock() else { return };
        self.read(each);
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("is_empty", &self.is_empty()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_as_many_entries_as_kvm_says() {
        assert_eq!(ENTRIES, 170);
    }

    #[test]
    fn an_entry_is_as_wide_as_the_access() {
        let entry = |len| kvm_coalesced_mmio {
            phys_addr: 0x800,
            len,
            data: [0x11, 0x22, 0x33, 0x44, 0x55, 0, 0, 0],
            ..Default::default()
        };
        let value = |len| write(&entry(len)).value;
        assert_eq!((value(1), value(2), value(4)), (0x11, 0x2211, 0x4433_2211));
        assert_eq!(write(&entry(1)), CoalescedWrite { port: 0x800, width: 1, value: 0x11 });
        assert_eq!(value(0), 0);
    }
}
