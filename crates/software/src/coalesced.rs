//! Port writes that collect while the guest keeps running.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use nerite_hypervisor::{CoalescedWrite, CoalescedWrites};
use parking_lot::Mutex;

/// Maximum number of writes that wait; as many as in KVM's ring.
const CAPACITY: usize = 169;

/// The writes of all vCPUs of a VM that wait.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Ports whose writes collect, a bit for each: every other write looks here, too.
    ports: Box<[AtomicU64]>,
    writes: Mutex<VecDeque<CoalescedWrite>>,
    /// Held by the one taker.
    taker: Mutex<()>,
    /// Number of writes that are not done.
    waiting: AtomicUsize,
    taken: AtomicU64,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            ports: (0..=u16::MAX >> 6).map(|_| AtomicU64::new(0)).collect(),
            writes: Mutex::default(),
            taker: Mutex::default(),
            waiting: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
        }
    }
}

impl Ring {
    pub(crate) fn add_ports(&self, first: u16, size: u16) {
        for port in (first..=u16::MAX).take(size.into()) {
            if let Some(word) = self.ports.get(usize::from(port >> 6)) {
                word.fetch_or(1 << (port & 63), Ordering::Relaxed);
            }
        }
    }

    fn has_port(&self, port: u16) -> bool {
        let word = self.ports.get(usize::from(port >> 6));
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (port & 63) & 1 != 0)
    }

    /// Collects a write. Returns `false` if it must be an exit: of another port, or when there is
    /// no room.
    pub(crate) fn push(&self, write: CoalescedWrite) -> bool {
        let last = write.port.saturating_add(u16::from(write.width).saturating_sub(1));
        if !(write.port..=last).all(|port| self.has_port(port)) {
            return false;
        }
        let mut writes = self.writes.lock();
        if writes.len() >= CAPACITY {
            return false;
        }
        writes.push_back(write);
        self.waiting.fetch_add(1, Ordering::Release);
        true
    }

    fn read(&self, each: &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>) {
        // A guest that keeps writing does not keep a reader here.
        let mut left = self.writes.lock().len();
        while left > 0 {
            let Some(write) = self.writes.lock().front().copied() else { return };
            if each(write).is_break() {
                return;
            }
            self.writes.lock().pop_front();
            self.waiting.fetch_sub(1, Ordering::Release);
            self.taken.fetch_add(1, Ordering::Relaxed);
            left = left.saturating_sub(1);
        }
    }
}

impl CoalescedWrites for Ring {
    fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    fn take(&self, each: &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>) {
        let _taker = self.taker.lock();
        self.read(each);
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn try_take(&self, each: &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>) {
        if let Some(_taker) = self.taker.try_lock() {
            self.read(each);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_come_in_order_and_stay_when_one_is_not_taken() {
        let ring = Ring::default();
        ring.add_ports(0x800, 4);
        let write = |port, value| CoalescedWrite { port, width: 1, value };
        assert!(!ring.push(write(0x7ff, 0)));
        assert!(
            !ring.push(CoalescedWrite { port: 0x802, width: 4, value: 0 }),
            "only a part is inside"
        );
        for value in 0..u32::try_from(CAPACITY).unwrap() {
            assert!(ring.push(write(0x800, value)));
        }
        assert!(!ring.push(write(0x800, 0)), "it is full");
        let mut seen = Vec::new();
        ring.take(&mut |write| {
            if write.value == 2 {
                return ControlFlow::Break(());
            }
            seen.push(write.value);
            ControlFlow::Continue(())
        });
        assert_eq!((seen, ring.is_empty(), ring.taken()), (vec![0, 1], false, 2));
        ring.try_take(&mut |_| ControlFlow::Continue(()));
        assert!(ring.is_empty());
    }
}
