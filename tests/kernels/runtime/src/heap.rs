//! A heap that only grows: guests live for a second.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

const SIZE: usize = 4 << 20;

#[repr(C, align(4096))]
struct Heap {
    bytes: UnsafeCell<[u8; SIZE]>,
    used: AtomicUsize,
}

// SAFETY: `used` hands out every byte at most once.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap { bytes: UnsafeCell::new([0; SIZE]), used: AtomicUsize::new(0) };

// SAFETY: returned ranges lie inside `bytes`, are aligned as asked, and never overlap, as `used`
// only grows.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            // The heap starts at a page, so offsets are aligned where addresses are (up to a page).
            let Some(start) = used.checked_next_multiple_of(layout.align()) else {
                return null_mut();
            };
            let Some(end) = start.checked_add(layout.size()) else { return null_mut() };
            if end > SIZE || layout.align() > 4096 {
                return null_mut();
            }
            match self.used.compare_exchange_weak(used, end, Ordering::AcqRel, Ordering::Relaxed) {
                // SAFETY: `start <= end <= SIZE`, so the pointer stays inside `bytes`.
                Ok(_) => return unsafe { self.bytes.get().cast::<u8>().add(start) },
                Err(now) => used = now,
            }
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
