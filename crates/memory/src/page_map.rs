//! Pages of this process that have memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::region::PAGE_LENGTH;

/// Bits of an entry: the page is present, or swapped out (Linux,
/// Documentation/admin-guide/mm/pagemap.rst).
const HAS_MEMORY: u64 = 1 << 63 | 1 << 62;
/// Bytes of an entry.
const ENTRY: usize = 8;

/// The page tables of this process, open: a confined one that has only this descriptor can ask
/// which pages of guest RAM were ever touched.
#[derive(Debug)]
pub struct PageMap(File);

impl PageMap {
    /// Opens the page tables of the calling process.
    ///
    /// # Errors
    /// Fails if the host has no `/proc`, or does not let the process look at itself.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Returns for each page from the host-virtual address `host` on whether it has memory of its
    /// own or is mapped from a file; the others are as they were mapped.
    ///
    /// # Errors
    /// Fails if the host does not answer.
    pub(crate) fn touched(&self, host: usize, pages: usize) -> io::Result<Vec<bool>> {
        let mut entries = vec![0; pages.saturating_mul(ENTRY)];
        let first = host.checked_div(PAGE_LENGTH).unwrap_or(0);
        self.0.read_exact_at(&mut entries, (first as u64).saturating_mul(ENTRY as u64))?;
        let (entries, _) = entries.as_chunks::<ENTRY>();
        Ok(entries.iter().map(|entry| u64::from_ne_bytes(*entry) & HAS_MEMORY != 0).collect())
    }
}
