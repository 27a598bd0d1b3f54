//! Guest RAM in a file, and from one.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use super::{Backing, GuestRam, Memory, Observer, check_regions};
use crate::mapping::MappedRegion;
use crate::{Advised, Error, PAGE, Region};

/// Number of bytes that are looked at and written at a time.
const CHUNK: usize = 256 << 10;
/// [`PAGE`] as a length.
#[allow(clippy::cast_possible_truncation, reason = "4096 fits every usize")]
const PAGE_LENGTH: usize = PAGE as usize;

impl GuestRam {
    /// Writes all of RAM to `file`, which is empty: region after region, lowest first, with holes
    /// for pages of zeros. Returns the number of bytes that are not holes.
    ///
    /// Writes of the guest and of devices meanwhile may or may not be in it.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn write_sparse(&self, file: &File) -> io::Result<u64> {
        file.set_len(self.size())?;
        let mut buffer = vec![0; CHUNK];
        let (mut offset, mut written) = (0_u64, 0_u64);
        for region in &self.regions {
            let mut address = region.start;
            while address < region.end() {
                let left = usize::try_from(region.end().saturating_sub(address)).unwrap_or(CHUNK);
                let chunk = buffer.get_mut(..left.min(CHUNK)).unwrap_or_default();
                self.read(address, chunk).map_err(io::Error::other)?;
                written = written.saturating_add(write_data(file, chunk, offset)?);
                address = address.saturating_add(chunk.len() as u64);
                offset = offset.saturating_add(chunk.len() as u64);
            }
        }
        Ok(written)
    }

    /// Maps RAM that [`GuestRam::write_sparse`] wrote, in the same regions. Pages are read when
    /// they are touched, so this takes as long for much RAM as for little; what the guest writes
    /// stays out of the file.
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
        let mut offset = 0_u64;
        for region in &regions {
            mapped.push(MappedRegion::of_file(*region, backing, file.as_fd(), offset)?);
            offset = offset.saturating_add(region.size);
        }
        let memory = Memory::from_regions(mapped).map_err(|_| Error::NoRegions)?;
        Ok(Self { memory, regions, observer: Observer::default() })
    }
}

/// Writes the pages of `chunk` that are not all zeros, each run of them in one piece.
fn write_data(file: &File, chunk: &[u8], offset: u64) -> io::Result<u64> {
    let mut written = 0_u64;
    let mut rest = chunk;
    while !rest.is_empty() {
        let zeros = leading(rest, is_zero);
        let (_, after) = rest.split_at(zeros);
        let (data, after) = after.split_at(leading(after, |page| !is_zero(page)));
        if !data.is_empty() {
            let position = chunk.len().saturating_sub(after.len()).saturating_sub(data.len());
            file.write_all_at(data, offset.saturating_add(position as u64))?;
            written = written.saturating_add(data.len() as u64);
        }
        rest = after;
    }
    Ok(written)
}

/// Length in bytes of the pages at the beginning of `bytes` that are as `wanted`.
fn leading(bytes: &[u8], wanted: impl Fn(&[u8]) -> bool) -> usize {
    bytes.chunks(PAGE_LENGTH).take_while(|page| wanted(page)).map(<[u8]>::len).sum()
}

fn is_zero(page: &[u8]) -> bool {
    let (words, rest) = page.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
#[path = "saved_test.rs"]
mod tests;
