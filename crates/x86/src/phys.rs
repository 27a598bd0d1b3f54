//! Guest-physical memory, with the pages that were used last at hand.

use std::fmt;

use nerite_memory::Page;

use crate::platform::Memory;

/// Pages at hand, for page tables.
const PAGES: usize = 64;

/// Guest-physical memory.
pub(crate) struct Physical {
    memory: Box<dyn Memory>,
    recent: [Option<(u64, Page)>; PAGES],
}

impl fmt::Debug for Physical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Physical").finish_non_exhaustive()
    }
}

impl Physical {
    pub(crate) fn new(memory: Box<dyn Memory>) -> Self {
        Self { memory, recent: [const { None }; PAGES] }
    }

    /// The page of RAM at an address.
    pub(crate) fn page(&mut self, address: u64) -> Option<&Page> {
        let start = address & !0xfff;
        let index = (address >> 12) as usize & (PAGES - 1);
        let slot = self.recent.get_mut(index)?;
        if slot.as_ref().is_none_or(|(known, _)| *known != start) {
            *slot = Some((start, self.memory.page(start)?));
        }
        slot.as_ref().map(|(_, page)| page)
    }
}
