//! Translations that were used last.

use std::sync::Arc;

use nerite_memory::Page;

use crate::code::Chunk;

/// Entries of one set.
const ENTRIES: usize = 512;
/// Sets: one for each kind of access whose rights differ.
const SETS: usize = 4;
/// A tag that no page has.
pub(crate) const NONE: u64 = 1;
/// The address bits that a tag holds.
pub(crate) const PAGE: u64 = !0xfff;

/// Set of accesses by privileged code.
pub(crate) const SUPERVISOR: usize = 0;
/// Set of accesses by unprivileged code.
pub(crate) const USER: usize = ENTRIES;
/// Set of accesses by privileged code that may use pages of unprivileged code although CR4.SMAP is
/// set.
pub(crate) const SUPERVISOR_AC: usize = 2 * ENTRIES;
/// A set that stays empty: each access is looked at.
pub(crate) const CHECKED: usize = 3 * ENTRIES;

/// Memory of a page, and the record of its code.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) page: Page,
    pub(crate) chunk: Arc<Chunk>,
}

/// One translation.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Entry {
    /// The linear page if it may be read.
    pub(crate) read: u64,
    /// The linear page if it may be written to and holds no code.
    pub(crate) write: u64,
    /// The linear page if it may be written to, but holds code.
    pub(crate) code: u64,
    /// Guest-physical address of the page.
    pub(crate) address: u64,
    pub(crate) target: Option<Target>,
    pub(crate) global: bool,
}

const EMPTY: Entry =
    Entry { read: NONE, write: NONE, code: NONE, address: 0, target: None, global: false };

impl Entry {
    fn clear(&mut self) {
        *self = EMPTY;
    }
}

/// An entry where there is no memory for entries yet.
static UNUSED: Entry = EMPTY;

/// A direct-mapped cache of translations.
///
/// It has no memory before the first translation: many processors wait for their first
/// instruction in a pool.
#[derive(Debug, Default)]
pub(crate) struct Tlb {
    entries: Option<Box<[Entry; ENTRIES * SETS]>>,
    /// A bit for each entry in use.
    live: [u64; ENTRIES * SETS / 64],
    /// Offset of the set in use.
    pub(crate) set: usize,
    /// A large page was cached in pieces.
    pub(crate) has_large: bool,
}

impl Tlb {
    #[inline(always)]
    fn index(&self, linear: u64) -> usize {
        (self.set | (linear >> 12) as usize & (ENTRIES - 1)) & (ENTRIES * SETS - 1)
    }

    /// The entry where the translation of a linear address would be.
    #[inline(always)]
    pub(crate) fn entry(&self, linear: u64) -> &Entry {
        let index = self.index(linear);
        self.entries.as_deref().and_then(|entries| entries.get(index)).unwrap_or(&UNUSED)
    }

    /// The entry where the translation of a linear address is or will be.
    pub(crate) fn entry_mut(&mut self, linear: u64) -> Option<&mut Entry> {
        let index = self.index(linear);
        self.entries.as_deref_mut()?.get_mut(index)
    }

    /// Makes an entry for a new translation of a linear address.
    pub(crate) fn occupy(&mut self, linear: u64, new: Entry) {
        let index = self.index(linear);
        if self.entries.is_none() {
            let entries: Box<[Entry]> = (0..ENTRIES * SETS).map(|_| EMPTY).collect();
            self.entries = entries.try_into().ok();
        }
        if let (Some(entries), Some(live)) = (&mut self.entries, self.live.get_mut(index >> 6))
            && let Some(entry) = entries.get_mut(index)
        {
            *entry = new;
            *live |= bit(index);
        }
    }

    /// Calls a function for each entry in use, and takes those out of use for which it returns
    /// `false`.
    fn retain(&mut self, mut keep: impl FnMut(&mut Entry) -> bool) {
        let Some(entries) = self.entries.as_deref_mut() else { return };
        for (live, first) in self.live.iter_mut().zip((0_usize..).step_by(64)) {
            let mut left = *live;
            while left != 0 {
                let index = first | left.trailing_zeros() as usize;
                left &= left.wrapping_sub(1);
                if let Some(entry) = entries.get_mut(index)
                    && !keep(entry)
                {
                    entry.clear();
                    *live &= !bit(index);
                }
            }
        }
    }

    /// Drops all translations, or all but global ones.
    pub(crate) fn flush(&mut self, global: bool) {
        self.retain(|entry| entry.global && !global);
        self.has_large &= !global;
    }

    /// Drops the translation of one address.
    pub(crate) fn flush_page(&mut self, linear: u64) {
        if self.has_large {
            return self.flush(true);
        }
        let set = self.set;
        for other in [SUPERVISOR, USER, SUPERVISOR_AC] {
            self.set = other;
            if let Some(entry) = self.entry_mut(linear)
                && entry.read == linear & PAGE
            {
                entry.clear();
            }
        }
        self.set = set;
    }

    /// Makes stores to the page at a guest-physical address look for code.
    pub(crate) fn protect(&mut self, address: u64) {
        self.retain(|entry| {
            if entry.address == address && entry.write != NONE {
                entry.code = entry.write;
                entry.write = NONE;
            }
            true
        });
    }
}

/// Translations of pages of code.
const FETCH_ENTRIES: usize = 128;

/// Translations of pages of code: linear page (and bit 1 for unprivileged code) and guest-physical
/// page.
#[derive(Debug)]
pub(crate) struct Fetch {
    entries: [(u64, u64); FETCH_ENTRIES],
}

impl Default for Fetch {
    fn default() -> Self {
        Self { entries: [(NONE, 0); FETCH_ENTRIES] }
    }
}

impl Fetch {
    pub(crate) fn flush(&mut self) {
        self.entries = [(NONE, 0); FETCH_ENTRIES];
    }

    pub(crate) fn slot(&mut self, linear: u64) -> Option<&mut (u64, u64)> {
        self.entries.get_mut((linear >> 12) as usize & (FETCH_ENTRIES - 1))
    }
}

/// The bit of an entry in its word.
const fn bit(index: usize) -> u64 {
    1_u64.wrapping_shl((index & 63) as u32)
}
