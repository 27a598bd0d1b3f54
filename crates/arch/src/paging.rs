//! Boot page tables, and a walker for the page tables a guest made (Intel SDM vol. 3, 5.5: 4-level
//! and 5-level paging).

use crate::Error;

mod walk;

pub use walk::{Chunks, Flags, Root, Translation, WalkError, chunks, walk};

/// The size of a page table in bytes, and of the smallest page.
pub const TABLE_SIZE: usize = 4096;

const TABLE: u64 = 4096;
const MIB_2: u64 = 2 << 20;
const GIB: u64 = 1 << 30;
const PDPT_SPAN: u64 = 512 << 30;
/// The first address of the lower half's end: above it, virtual addresses are not canonical.
const LOWER_HALF_END: u64 = 1 << 47;

/// Present.
const PRESENT: u64 = 1;
/// Writable.
const WRITABLE: u64 = 1 << 1;
/// The entry maps a large page.
const LARGE: u64 = 1 << 7;
/// The index of the PML4 entry that points to the PML4 itself.
const RECURSIVE: usize = 511;

/// A page table to be written to guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Guest-physical address.
    pub addr: u64,
    /// The 512 entries, little-endian.
    pub bytes: Box<[u8; TABLE_SIZE]>,
}

impl Table {
    fn empty(addr: u64) -> Self {
        Self { addr, bytes: Box::new([0; TABLE_SIZE]) }
    }

    /// Sets an entry. `index` is below 512 by construction; a larger one would have no place to go.
    fn set(&mut self, index: usize, value: u64) {
        let (entries, _) = self.bytes.as_chunks_mut::<8>();
        if let Some(entry) = entries.get_mut(index) {
            *entry = value.to_le_bytes();
        }
    }
}

/// Page tables that map `start..end` to itself with writable, executable 2 MiB pages, and the PML4
/// into its own last entry, by which a Hermit kernel knows that everything below its end is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityMap {
    /// Guest-physical address of the root table.
    pub pml4: u64,
    /// The first address of the room for the other tables.
    pub tables_start: u64,
    /// The first address after that room.
    pub tables_end: u64,
    /// The first address to map, a multiple of 2 MiB.
    pub start: u64,
    /// The first address after what to map, a multiple of 2 MiB.
    pub end: u64,
}

impl IdentityMap {
    /// The tables, the root first. How many there are is bounded by the room for them.
    ///
    /// # Errors
    ///
    /// If an address is not aligned or too high, or the room is too small.
    pub fn tables(&self) -> Result<Vec<Table>, Error> {
        let aligned = [
            ("the root", self.pml4, TABLE),
            ("the room's start", self.tables_start, TABLE),
            ("the start of the range", self.start, MIB_2),
            ("the end of the range", self.end, MIB_2),
        ];
        for (what, value, unit) in aligned {
            if !value.is_multiple_of(unit) || value > LOWER_HALF_END {
                return Err(Error::Unaligned { what, value, unit });
            }
        }
        let mut root = Table::empty(self.pml4);
        root.set(RECURSIVE, self.pml4 | PRESENT | WRITABLE);
        let mut next = self.tables_start;
        let mut tables = Vec::new();
        for (index, start, end) in pieces(self.start, self.end, PDPT_SPAN) {
            let mut pdpt = Table::empty(self.take(&mut next)?);
            root.set(index, pdpt.addr | PRESENT | WRITABLE);
            for (index, start, end) in pieces(start, end, GIB) {
                let mut directory = Table::empty(self.take(&mut next)?);
                pdpt.set(index, directory.addr | PRESENT | WRITABLE);
                for (index, start, _) in pieces(start, end, MIB_2) {
                    directory.set(index, start | PRESENT | WRITABLE | LARGE);
                }
                tables.push(directory);
            }
            tables.push(pdpt);
        }
        tables.insert(0, root);
        Ok(tables)
    }

    /// The next table's address.
    fn take(&self, next: &mut u64) -> Result<u64, Error> {
        let addr = *next;
        *next = addr.saturating_add(TABLE);
        if *next > self.tables_end {
            let room = self.tables_end.saturating_sub(self.tables_start);
            return Err(Error::TableRoom { room, start: self.start, end: self.end });
        }
        Ok(addr)
    }
}

/// Cuts `start..end` at multiples of `span`: each piece with the index its table entry has.
fn pieces(start: u64, end: u64, span: u64) -> impl Iterator<Item = (usize, u64, u64)> {
    let mut next = start;
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        let from = next;
        let slot = from.checked_div(span)?;
        next = slot.saturating_add(1).saturating_mul(span).min(end);
        let index = usize::try_from(slot & 511).ok()?;
        Some((index, from, next))
    })
}

#[cfg(test)]
#[path = "paging/paging_test.rs"]
mod tests;
