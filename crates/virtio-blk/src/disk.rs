//! The storage behind a block device.

use std::io;

use nerite_memory::GuestRam;
use nerite_virtio::Segment;

/// Bytes of a sector, in which virtio counts whatever the size of a block (5.2.4).
pub const SECTOR: u64 = 512;

/// Bytes of a disk, whole sectors, all of them on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first one.
    pub offset: u64,
    /// Number of sectors.
    pub length: u64,
}

impl Range {
    /// `count` sectors from `first` on, of a disk of `sectors` sectors. `None` if one of them is
    /// not there.
    #[must_use]
    pub fn of_sectors(first: u64, count: u64, sectors: u64) -> Option<Self> {
        let end = first.checked_add(count)?;
        let range = Self { offset: first.checked_mul(SECTOR)?, length: count.checked_mul(SECTOR)? };
        (end <= sectors).then_some(range)
    }
}

/// A disk. It is called on one thread, which may wait.
pub trait Disk: Send {
    /// Size in sectors, which does not change.
    fn sectors(&self) -> u64;

    /// `true` if it can only be read.
    fn is_read_only(&self) -> bool;

    /// Reads from byte `offset` on into guest memory. Returns how many bytes, which may be fewer;
    /// none if there are none.
    ///
    /// # Errors
    /// If the host cannot.
    fn read(&mut self, ram: &GuestRam, to: &[Segment], offset: u64) -> io::Result<u64>;

    /// Writes guest memory from byte `offset` on. Returns how many bytes, which may be fewer.
    ///
    /// # Errors
    /// If the host cannot.
    fn write(&mut self, ram: &GuestRam, from: &[Segment], offset: u64) -> io::Result<u64>;

    /// Returns when all that was written would survive the host's end.
    ///
    /// # Errors
    /// If that cannot be said.
    fn flush(&mut self) -> io::Result<()>;

    /// The guest does not need what is there any more.
    ///
    /// # Errors
    /// If the host cannot.
    fn discard(&mut self, range: Range) -> io::Result<()>;

    /// From now on there are zeroes. `may_discard` says that the space need not stay reserved.
    ///
    /// # Errors
    /// If the host cannot.
    fn zero(&mut self, range: Range, may_discard: bool) -> io::Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sector_is_beyond_the_end_and_no_number_wraps() {
        let range = |first, count| Range::of_sectors(first, count, 100);
        assert_eq!(range(0, 100), Some(Range { offset: 0, length: 51200 }));
        assert_eq!(range(99, 1), Some(Range { offset: 99 * 512, length: 512 }));
        assert_eq!(range(100, 0), Some(Range { offset: 51200, length: 0 }));
        for (first, count) in
            [(100, 1), (99, 2), (0, 101), (u64::MAX, 1), (1, u64::MAX), (u64::MAX / 512, 2)]
        {
            assert_eq!(range(first, count), None, "{first} {count}");
        }
        assert_eq!(Range::of_sectors(u64::MAX - 1, 1, u64::MAX), None);
    }
}
