//! Guest RAM put back to what a file has, in place.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::GuestRam;
use crate::{Error, PAGE};

/// Number of bytes of an entry in `/proc/self/pagemap`.
const ENTRY: usize = 8;
/// Number of entries that are read at a time.
const ENTRIES: usize = 8192;
/// Number of pages that are copied at a time.
const RUN: u64 = 64;
/// Bits of an entry: the page is in memory, in swap, of a file or shared
/// (`Documentation/admin-guide/mm/pagemap.rst` of Linux).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;

/// Way in which RAM was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reverted {
    /// All of it was mapped anew.
    Mapped,
    /// So many pages were copied.
    Copied(u64),
}

impl GuestRam {
    /// Maps all of RAM anew from `file`, which [`GuestRam::write_sparse`] wrote, in place: host
    /// addresses stay. Whatever was written since is gone.
    ///
    /// No vCPU and no device uses the RAM meanwhile.
    ///
    /// # Errors
    /// Fails if the file does not have exactly the size of RAM, or the host refuses the mapping;
    /// RAM is then undefined.
    pub fn map_again(&self, file: &File) -> Result<(), Error> {
        let size = self.size();
        let length = file.metadata().map_err(|source| Error::Map { size: size >> 20, source })?;
        if length.len() != size {
            return Err(Error::OutOfRange { what: "size of the memory file" });
        }
        let mut offset = 0_u64;
        for region in self.memory.iter() {
            region.map_again(file.as_fd(), offset)?;
            offset = offset.saturating_add(region.len());
        }
        self.regions.iter().for_each(|region| self.written(region.start, region.size));
        Ok(())
    }

    /// Copies those pages back from `file` that have been written to since [`GuestRam::from_file`]
    /// or [`GuestRam::map_again`] mapped it, by whatever: the guest, a device, another thread.
    /// `pagemap` is `/proc/self/pagemap`.
    ///
    /// A page that has been copied back counts as written from then on. So a set of pages that a
    /// guest writes to over and over costs no page faults. If there are more than `most`, all of
    /// RAM is mapped anew instead.
    ///
    /// # Errors
    /// Fails if a file cannot be read. RAM is then undefined.
    pub fn revert(&self, file: &File, pagemap: &File, most: u64) -> io::Result<Reverted> {
        let runs = self.written_runs(pagemap)?;
        let pages = runs.iter().fold(0_u64, |sum, run| sum.saturating_add(run.pages));
        if pages > most {
            self.map_again(file).map_err(io::Error::other)?;
            return Ok(Reverted::Mapped);
        }
        let mut buffer = vec![0; usize::try_from(RUN.saturating_mul(PAGE)).unwrap_or(0)];
        for Run { mut address, mut offset, mut pages } in runs {
            while pages > 0 {
                let bytes = pages.min(RUN).saturating_mul(PAGE);
                let length = usize::try_from(bytes).unwrap_or(0);
                let chunk = buffer.get_mut(..length).unwrap_or_default();
                file.read_exact_at(chunk, offset)?;
                self.write(address, chunk).map_err(io::Error::other)?;
                address = address.saturating_add(bytes);
                offset = offset.saturating_add(bytes);
                pages = pages.saturating_sub(RUN);
            }
        }
        Ok(Reverted::Copied(pages))
    }

    /// Runs of pages that are this process's own and no longer the file's.
    fn written_runs(&self, pagemap: &File) -> io::Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        let mut buffer = vec![0; ENTRIES.saturating_mul(ENTRY)];
        let mut offset = 0_u64;
        for mapping in self.mappings() {
            let first = (mapping.host.addr() as u64).checked_div(PAGE).unwrap_or(0);
            let count = mapping.size.checked_div(PAGE).unwrap_or(0);
            let mut done = 0_u64;
            while done < count {
                let entries = count.saturating_sub(done).min(ENTRIES as u64);
                let bytes = usize::try_from(entries).unwrap_or(0).saturating_mul(ENTRY);
                let chunk = buffer.get_mut(..bytes).unwrap_or_default();
                let position = first.saturating_add(done).saturating_mul(ENTRY as u64);
                pagemap.read_exact_at(chunk, position)?;
                let entries_read = chunk.as_chunks::<ENTRY>().0.iter();
                for (index, entry) in (done..).zip(entries_read) {
                    if !is_written(u64::from_ne_bytes(*entry)) {
                        continue;
                    }
                    let at = index.saturating_mul(PAGE);
                    let page = Run {
                        address: mapping.guest.saturating_add(at),
                        offset: offset.saturating_add(at),
                        pages: 1,
                    };
                    match runs.last_mut().filter(|run| run.is_followed_by(&page)) {
                        Some(run) => run.pages = run.pages.saturating_add(1),
                        None => runs.push(page),
                    }
                }
                done = done.saturating_add(entries);
            }
            offset = offset.saturating_add(mapping.size);
        }
        Ok(runs)
    }
}

/// Adjoining pages.
struct Run {
    /// Guest-physical address.
    address: u64,
    /// Place in the file.
    offset: u64,
    pages: u64,
}

impl Run {
    fn is_followed_by(&self, next: &Self) -> bool {
        let length = self.pages.saturating_mul(PAGE);
        self.address.checked_add(length) == Some(next.address)
            && self.offset.checked_add(length) == Some(next.offset)
    }
}

/// Returns `true` if a page of a private mapping of a file has been written to: it is the process's
/// own then.
const fn is_written(entry: u64) -> bool {
    entry & SWAPPED != 0 || entry & (PRESENT | OF_FILE) == PRESENT
}

#[cfg(test)]
#[path = "revert_test.rs"]
mod tests;
