//! Pages that code was decoded from, shared by all processors of a guest.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Pages in a [`Chunk`].
const PAGES: usize = 512;

/// The record of which guest RAM holds code that some processor has decoded.
///
/// All processors of one guest share it. They take note of each other's writes by it, and whatever
/// else writes to guest RAM (a device, a debugger, a loader) calls [`CodePages::written`]
/// afterwards.
#[derive(Default)]
pub struct CodePages {
    chunks: RwLock<HashMap<u64, Arc<Chunk>>>,
    /// Held during a locked access across two pages.
    split: Mutex<()>,
}

impl fmt::Debug for CodePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodePages").finish_non_exhaustive()
    }
}

impl CodePages {
    /// An empty record.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Makes all processors decode anew what lies in the `len` bytes at a guest-physical address.
    /// To be called after the bytes have changed.
    pub fn written(&self, address: u64, len: u64) {
        let Some(last) = len.checked_sub(1).map(|len| address.saturating_add(len)) else { return };
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        if address >> 21 == last >> 21 {
            if let Some(chunk) = chunks.get(&(address >> 21)) {
                chunk.written(address, last);
            }
            return;
        }
        // Not in proportion to what was written: the length may be a guest's number.
        for (key, chunk) in chunks.iter() {
            let start = key << 21;
            let (first, end) = (address.max(start), last.min(start | 0x1f_ffff));
            if first <= end {
                chunk.written(first, end);
            }
        }
    }

    /// Makes all processors decode everything anew: RAM as a whole may have changed.
    pub fn all_written(&self) {
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        for (key, chunk) in chunks.iter() {
            for page in (0..PAGES as u64).map(|page| key << 21 | page << 12) {
                if chunk.lines(page) != 0 {
                    chunk.invalidate(page);
                }
            }
        }
    }

    /// Keeps other processors from locked accesses across two pages.
    pub(crate) fn hold_split(&self) -> MutexGuard<'_, ()> {
        self.split.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part of the record for the 2 MiB around a guest-physical address.
    pub(crate) fn chunk(&self, address: u64) -> Arc<Chunk> {
        let key = address >> 21;
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = chunks.get(&key) {
            return Arc::clone(chunk);
        }
        drop(chunks);
        let mut chunks = self.chunks.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(chunks.entry(key).or_default())
    }
}

/// The record for 2 MiB.
pub(crate) struct Chunk {
    /// A bit for each 64 bytes of a page that hold code.
    lines: [AtomicU64; PAGES],
    /// A count of the writes to code of a page.
    generations: [AtomicU32; PAGES],
    /// Held while lines and generations change together.
    change: Mutex<()>,
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            lines: [const { AtomicU64::new(0) }; PAGES],
            generations: [const { AtomicU32::new(0) }; PAGES],
            change: Mutex::new(()),
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").finish_non_exhaustive()
    }
}

#[inline(always)]
const fn index(address: u64) -> usize {
    (address >> 12 & 511) as usize
}

/// The lines that the bytes from offset `first` to `last` of a page lie in.
const fn line_mask(first: u64, last: u64) -> u64 {
    let (first, last) = (first >> 6 & 63, last >> 6 & 63);
    (u64::MAX << first) & (u64::MAX >> (63 ^ last))
}

impl Chunk {
    /// The lines with code of the page at `address`.
    #[inline(always)]
    pub(crate) fn lines(&self, address: u64) -> u64 {
        self.lines.get(index(address)).map_or(0, |lines| lines.load(Ordering::Relaxed))
    }

    /// `true` if the bytes from offset `first` to `last` of the page share a line with code.
    pub(crate) fn has_code(&self, address: u64, first: u64, last: u64) -> bool {
        self.lines(address) & line_mask(first, last) != 0
    }

    /// Makes the code stale that shares a line with the bytes from guest-physical address `first`
    /// to `last`, both in these 2 MiB.
    fn written(&self, first: u64, last: u64) {
        for number in first >> 12..=last >> 12 {
            let page = number << 12;
            let (start, end) = (first.max(page), last.min(page | 0xfff));
            if self.has_code(page, start & 0xfff, end & 0xfff) {
                self.invalidate(page);
            }
        }
    }

    /// The page's generation: code decoded at another one is stale.
    #[inline(always)]
    pub(crate) fn generation(&self, address: u64) -> u32 {
        self.generations.get(index(address)).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Makes all code of the page stale.
    #[cold]
    pub(crate) fn invalidate(&self, address: u64) {
        let _held = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((lines, count)) =
            self.lines.get(index(address)).zip(self.generations.get(index(address)))
        {
            count.fetch_add(1, Ordering::SeqCst);
            lines.store(0, Ordering::SeqCst);
        }
    }

    /// Records that code is about to be decoded from these bytes. Returns the generation, and
    /// `true` if the page had no code before.
    pub(crate) fn mark(&self, address: u64, first: u64, last: u64) -> (u32, bool) {
        let _held = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self
            .lines
            .get(index(address))
            .map_or(0, |lines| lines.fetch_or(line_mask(first, last), Ordering::SeqCst));
        (self.generation(address), before == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cover_what_is_written() {
        assert_eq!(line_mask(0, 0), 1);
        assert_eq!(line_mask(63, 64), 3);
        assert_eq!(line_mask(0, 4095), u64::MAX);
        assert_eq!(line_mask(4032, 4095), 1 << 63);
    }

    #[test]
    fn writes_make_code_stale_where_they_touch_it() {
        let pages = CodePages::new();
        let chunk = pages.chunk(0x20_3000);
        let (generation, new) = chunk.mark(0x20_3000, 100, 130);
        assert!(new && !chunk.mark(0x20_3000, 100, 130).1);
        pages.written(0x20_3000, 64);
        pages.written(0x20_3000 + 192, 10_000);
        pages.written(0x20_3000 + 70, 0);
        assert_eq!(chunk.generation(0x20_3000), generation);
        pages.written(0x20_2fff, 0x1000);
        assert_ne!(chunk.generation(0x20_3000), generation);
        assert_eq!(chunk.lines(0x20_3000), 0);
        pages.written(u64::MAX - 1, u64::MAX);
        // A length that no memory has takes no longer.
        let (generation, _) = chunk.mark(0x20_3000, 100, 130);
        pages.written(0, u64::MAX);
        assert_ne!(chunk.generation(0x20_3000), generation);
    }
}
