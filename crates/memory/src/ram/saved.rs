//! Guest RAM in a file, and from one.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::{Backing, GuestRam, Memory, Observer, check_regions};
use crate::extents::Extents;
use crate::mapping::MappedRegion;
use crate::region::PAGE_LENGTH;
use crate::{Advised, Error, PAGE, PageMap, Region};

/// Number of bytes that are looked at and written at a time.
const CHUNK: usize = 256 << 10;
/// Number of bytes whose pages are asked for at a time.
const WINDOW: u64 = 64 << 20;

impl GuestRam {
    /// Writes all of RAM to `file`, which is empty: region after region, lowest first, with holes
    /// for pages of zeros. Returns the number of bytes that are not holes.
    ///
    /// With the page tables of this process, pages that were never touched take no time. Writes of
    /// the guest and of devices meanwhile may or may not be in it.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn write_sparse(&self, file: &File, page_map: Option<&PageMap>) -> io::Result<u64> {
        file.set_len(self.size())?;
        self.write_used(
            page_map,
            |_| Ok(Vec::new()),
            |chunk, position| write_pages(file, chunk, position, |_, page| is_zero(page)),
        )
    }

    /// Makes `file` as [`GuestRam::write_sparse`] does. It has the memory of an earlier moment or
    /// of another guest, of which only pages with other contents are written. Returns the number of
    /// bytes that were.
    ///
    /// # Errors
    /// Fails if the file has another size than RAM, or cannot be read or written.
    pub fn write_changes(&self, file: &File, page_map: Option<&PageMap>) -> io::Result<u64> {
        if file.metadata()?.len() != self.size() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it has another size than RAM",
            ));
        }
        let mut before = vec![0; CHUNK];
        let mut extents = Extents::of(file);
        let with_data = |range| extents.within(range);
        self.write_used(page_map, with_data, |chunk, position| {
            let before = before.get_mut(..chunk.len()).unwrap_or_default();
            file.read_exact_at(before, position)?;
            let (before, _) = before.as_chunks::<PAGE_LENGTH>();
            write_pages(file, chunk, position, |index, page| {
                before.get(index).is_some_and(|before| before == page)
            })
        })
    }

    /// Hands the parts of RAM that were touched to `read`, with their guest-physical addresses.
    pub(super) fn read_used(
        &self,
        page_map: Option<&PageMap>,
        mut read: impl FnMut(u64, &[u8]),
    ) -> io::Result<()> {
        self.each_used(
            page_map,
            |_| Ok(Vec::new()),
            |address, chunk, _| {
                read(address, chunk);
                Ok(())
            },
        )
    }

    /// Hands the parts of RAM that were touched, or are in the ranges that `others` adds to a range
    /// of offsets, to `write`, with their offsets. Returns the sum of its results.
    fn write_used(
        &self,
        page_map: Option<&PageMap>,
        others: impl FnMut(Range<u64>) -> io::Result<Vec<Range<u64>>>,
        mut write: impl FnMut(&[u8], u64) -> io::Result<u64>,
    ) -> io::Result<u64> {
        let mut written = 0_u64;
        self.each_used(page_map, others, |_, chunk, offset| {
            written = written.saturating_add(write(chunk, offset)?);
            Ok(())
        })?;
        Ok(written)
    }

    /// Hands the parts of RAM that were touched, or are in the ranges that `others` adds to a range
    /// of offsets, to `take`: guest-physical address, bytes, offset.
    fn each_used(
        &self,
        page_map: Option<&PageMap>,
        mut others: impl FnMut(Range<u64>) -> io::Result<Vec<Range<u64>>>,
        mut take: impl FnMut(u64, &[u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut offset = 0_u64;
        for mapped in self.memory.iter() {
            let (start, size) = (mapped.start_addr().0, mapped.len());
            let mut next = 0_u64;
            while next < size {
                let window = next..size.min(next.saturating_add(WINDOW));
                next = window.end;
                let end = offset.saturating_add(window.end);
                let others = others(offset.saturating_add(window.start)..end)?;
                let others = others.into_iter().map(|range| {
                    range.start.saturating_sub(offset)..range.end.saturating_sub(offset)
                });
                for mut used in used_pages(mapped, window, others, page_map) {
                    while !used.is_empty() {
                        let left = used.end.saturating_sub(used.start);
                        let left = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                        let chunk = buffer.get_mut(..left).unwrap_or_default();
                        let address = start.saturating_add(used.start);
                        self.read(address, chunk).map_err(io::Error::other)?;
                        take(address, chunk, offset.saturating_add(used.start))?;
                        used.start = used.start.saturating_add(chunk.len() as u64);
                    }
                }
            }
            offset = offset.saturating_add(size);
        }
        Ok(())
    }

    /// Maps RAM that [`GuestRam::write_sparse`] wrote, in the same regions. Pages are read when
    /// they are touched, so this takes as long for much RAM as for little; what the guest writes
    /// stays out of the file. Holes are not mapped from it: a guest takes no room in a file system
    /// that keeps its files in memory. Of a file with more than 8192 pieces, the holes behind those
    /// are mapped, too.
    ///
    /// The file must stay as it is for as long as the RAM is used: a page that was not written to
    /// has the contents of the file, and touching one beyond the file's end is SIGBUS.
    ///
    /// # Errors
    /// As [`GuestRam::new`]; huge pages cannot be mapped from a file. Fails, too, if the file does
    /// not have exactly the size of the regions.
    pub fn from_file(regions: &[Region], backing: &Backing, file: &File) -> Result<Self, Error> {
        let regions = regions.to_vec();
        if !regions.is_sorted() {
            return Err(Error::OutOfRange { what: "order of the memory regions" });
        }
        check_regions(&regions, backing)?;
        if backing.hugepages {
            return Err(Error::Conflict { with: Advised::File });
        }
        let size = regions.iter().fold(0_u64, |sum, region| sum.saturating_add(region.size));
        let length =
            file.metadata().map_err(|source| Error::Map { size: size >> 20, source })?.len();
        if length != size {
            return Err(Error::OutOfRange { what: "size of the memory file" });
        }
        let mut mapped = Vec::with_capacity(regions.len());
        let mut extents = Extents::of(file);
        let mut offset = 0_u64;
        for region in &regions {
            mapped.push(MappedRegion::of_file(*region, backing, file, offset, &mut extents)?);
            offset = offset.saturating_add(region.size);
        }
        let memory = Memory::from_regions(mapped).map_err(|_| Error::NoRegions)?;
        Ok(Self { memory, regions, observer: Observer::default() })
    }
}

/// Parts of a window of a region that may have other contents than zeros, and those in `others`.
fn used_pages(
    mapped: &MappedRegion,
    window: Range<u64>,
    others: impl Iterator<Item = Range<u64>>,
    page_map: Option<&PageMap>,
) -> Vec<Range<u64>> {
    let length = window.end.saturating_sub(window.start);
    let pages = usize::try_from(length).unwrap_or(0).checked_div(PAGE_LENGTH).unwrap_or(0);
    let host =
        usize::try_from(window.start).ok().and_then(|it| mapped.host().addr().checked_add(it));
    let asked = page_map.zip(host).and_then(|(map, host)| map.touched(host, pages).ok());
    // Without an answer all of it is looked at.
    let Some(mut used) = asked else { return vec![window] };
    let parts = mapped.file_parts();
    let first = parts.partition_point(|part| part.end <= window.start);
    let parts = parts.iter().skip(first).take_while(|part| part.start < window.end).cloned();
    // A page of a file that was not touched is in no page table.
    for part in parts.chain(others) {
        let [from, to] = [part.start.max(window.start), part.end.min(window.end)].map(|it| {
            let page = it.saturating_sub(window.start).checked_div(PAGE).unwrap_or(0);
            usize::try_from(page).unwrap_or(0)
        });
        used.get_mut(from..to).unwrap_or_default().fill(true);
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let addresses = (window.start..window.end).step_by(PAGE_LENGTH);
    for (address, _) in addresses.zip(used).filter(|(_, is_used)| *is_used) {
        let end = address.saturating_add(PAGE);
        match ranges.last_mut() {
            Some(last) if last.end == address => last.end = end,
            _ => ranges.push(address..end),
        }
    }
    ranges
}

/// Writes the pages of `chunk` that are not to be skipped, by index and contents; each run of them
/// in one piece. Returns the number of bytes that are written.
fn write_pages(
    file: &File,
    chunk: &[u8],
    position: u64,
    skips: impl Fn(usize, &[u8]) -> bool,
) -> io::Result<u64> {
    let (mut written, mut run) = (0_u64, 0..0);
    let mut flush = |run: Range<usize>| {
        let data = chunk.get(run.clone()).unwrap_or_default();
        written = written.saturating_add(data.len() as u64);
        if data.is_empty() {
            Ok(())
        } else {
            file.write_all_at(data, position.saturating_add(run.start as u64))
        }
    };
    for (index, page) in chunk.chunks(PAGE_LENGTH).enumerate() {
        let start = index.saturating_mul(PAGE_LENGTH);
        if skips(index, page) {
            flush(run)?;
            run = 0..0;
        } else if run.is_empty() {
            run = start..start.saturating_add(page.len());
        } else {
            run.end = start.saturating_add(page.len());
        }
    }
    flush(run)?;
    Ok(written)
}

pub(super) fn is_zero(page: &[u8]) -> bool {
    let (words, rest) = page.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
#[path = "saved_test.rs"]
mod tests;
