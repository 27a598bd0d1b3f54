//! One region of guest RAM in host memory.
//!
//! All `unsafe` of this crate is here. vm-memory has a mapping of its own; this one exists because
//! a region's host address must agree with its guest address below 2 MiB. Otherwise no huge page of
//! the host can be a huge page of the guest, and transparent huge pages gain little.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};
use vm_memory::bitmap::BS;
use vm_memory::volatile_memory::VolatileSlice;
use vm_memory::{
    GuestAddress, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes, MemoryRegionAddress,
};

use crate::extents::Extents;
use crate::region::align_up;
use crate::{Advised, Backing, Error, LARGE_PAGE, PAGE, Region};

/// A region of guest RAM, mapped.
pub struct MappedRegion {
    region: Region,
    /// The first byte of the region, inside the mapping.
    start: *mut u8,
    /// The whole mapping.
    mapping: *mut u8,
    mapping_size: usize,
    /// Parts that are mapped from a file, as offsets in the region in ascending order.
    file_parts: Vec<Range<u64>>,
    /// All of the region, and whether it is mapped from a file instead.
    whole: Range<u64>,
    is_mapped_again: AtomicBool,
}

// SAFETY: The pointers are to a mapping that this value owns and that belongs to no thread. It is
// only unmapped when the value is dropped, and accessed only by volatile means that tolerate others
// doing so at the same time.
unsafe impl Send for MappedRegion {}
// SAFETY: As above: shared use is exactly what the volatile accesses are for.
unsafe impl Sync for MappedRegion {}

impl MappedRegion {
    /// Maps zeroed memory for `region`, whose addresses were checked.
    pub(crate) fn new(region: Region, backing: &Backing) -> Result<Self, Error> {
        let too_large = Error::BadRegion { region, reason: "is too large for this host" };
        // Huge pages come aligned; for others there must be room to align in. What is left over
        // stays inaccessible.
        let slack = if backing.hugepages { 0 } else { LARGE_PAGE };
        let sizes = region
            .size
            .checked_add(slack)
            .map(usize::try_from)
            .zip(usize::try_from(region.size).ok());
        let Some((Ok(mapping_size), size)) = sizes else { return Err(too_large) };
        let failed = |errno: rustix::io::Errno| -> Error {
            let source = io::Error::from(errno);
            if backing.hugepages {
                return Error::HugePages { pages: region.size.div_ceil(LARGE_PAGE), source };
            }
            Error::Map { size: region.size >> 20, source }
        };
        // Reserved huge pages are set aside by mmap only without MAP_NORESERVE.
        let kind = if backing.hugepages {
            MapFlags::HUGETLB | MapFlags::HUGE_2MB
        } else {
            MapFlags::NORESERVE
        };
        // SAFETY: Without MAP_FIXED the kernel chooses a free range, so no memory of this process
        // is affected.
        let mapping = unsafe {
            mmap_anonymous(null_mut(), mapping_size, ProtFlags::empty(), MapFlags::PRIVATE | kind)
        }
        .map_err(failed)?
        .cast::<u8>();
        let address = mapping.addr() as u64;
        let shift = align_up(address, LARGE_PAGE)
            .and_then(|aligned| aligned.checked_add(region.start & LARGE_PAGE.wrapping_sub(1)))
            .map_or(0, |wanted| wanted.wrapping_sub(address) & LARGE_PAGE.wrapping_sub(1));
        let shift = if backing.hugepages { 0 } else { usize::try_from(shift).unwrap_or(0) };
        // From here on, dropping it unmaps the mapping.
        let start = mapping.wrapping_add(shift);
        let (whole, is_mapped_again) = (0..region.size, AtomicBool::new(false));
        let file_parts = Vec::new();
        let mapped =
            Self { region, start, mapping, mapping_size, file_parts, whole, is_mapped_again };
        // SAFETY: `shift` is below 2 MiB, the slack, so start..start+size is within the mapping
        // just made, which nothing else refers to. `start` is a multiple of the page size because
        // the region's start is.
        unsafe { mprotect(mapped.start.cast(), size, MprotectFlags::READ | MprotectFlags::WRITE) }
            .map_err(failed)?;
        mapped.advise(size, backing)?;
        Ok(mapped)
    }

    /// Maps the contents of `file` from `offset` on, copy-on-write: what is written stays here.
    /// Holes of the file are memory without a file: a page of a hole in a file that is kept in
    /// memory would be memory of that file.
    ///
    /// The file must not become shorter than what is mapped of it.
    pub(crate) fn of_file(
        region: Region,
        backing: &Backing,
        file: &File,
        offset: u64,
        extents: &mut Extents<'_>,
    ) -> Result<Self, Error> {
        let mut mapped = Self::new(region, backing)?;
        let too_large = || Error::BadRegion { region, reason: "is too large for this host" };
        let failed = |source| Error::Map { size: region.size >> 20, source };
        let end = offset.checked_add(region.size).ok_or_else(too_large)?;
        let found = extents.within(offset..end).map_err(failed)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        for extent in found {
            let within = extent.start.saturating_sub(offset)..extent.end.saturating_sub(offset);
            let [from, to] = [within.start, within.end].map(usize::try_from);
            let (Ok(from), Ok(to)) = (from, to) else { return Err(too_large()) };
            let (start, size) = (mapped.start.wrapping_add(from), to.saturating_sub(from));
            // SAFETY: `Extents::within` gives extents within offset..end, so start..start+size is
            // within the accessible part of the mapping that `mapped` owns, and whole pages of it.
            // Nothing else refers to it yet, and it stays a part of that mapping: it is unmapped
            // with the rest. Changes of the file show in it only as changes of bytes, which the
            // volatile accesses tolerate; an access beyond the end of a file that was truncated is
            // a signal, as the documentation says.
            unsafe { mmap(start.cast(), size, protection, flags, file, extent.start) }
                .map_err(|errno| failed(errno.into()))?;
            mapped.file_parts.push(within);
        }
        mapped.advise(usize::try_from(region.size).map_err(|_| too_large())?, backing)?;
        Ok(mapped)
    }

    /// Maps the contents of `file` from `offset` on in place of what is there, copy-on-write. The
    /// advice that the region was made with is lost.
    pub(crate) fn map_again(&self, file: BorrowedFd<'_>, offset: u64) -> Result<(), Error> {
        let size = usize::try_from(self.region.size)
            .map_err(|_| Error::BadRegion { region: self.region, reason: "is too large" })?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: start..start+size is the accessible part of the mapping that `self` owns, and
        // stays a part of it. Slices of it and a guest's memory slot stay valid, as the range is
        // mapped at every moment and bytes may change under volatile accesses.
        unsafe { mmap(self.start.cast(), size, protection, flags, file, offset) }
            .map_err(|errno| Error::Map { size: self.region.size >> 20, source: errno.into() })?;
        self.is_mapped_again.store(true, Ordering::Release);
        Ok(())
    }

    /// Parts that are mapped from a file, as offsets in the region in ascending order.
    pub(crate) fn file_parts(&self) -> &[Range<u64>] {
        if self.is_mapped_again.load(Ordering::Acquire) {
            std::slice::from_ref(&self.whole)
        } else {
            &self.file_parts
        }
    }

    /// Gives the region's memory back to the host: it is zeroed. Returns `false`, and leaves it as
    /// it was, if it is a file's or the host refuses.
    pub(crate) fn discard(&self) -> bool {
        if !self.file_parts().is_empty() {
            return false;
        }
        self.discard_pages(0, self.region.size).is_ok()
    }

    /// Gives the pages of `size` bytes from `offset` on back to the host: they are zeroed, or have
    /// the contents of the file that they are mapped from.
    pub(crate) fn discard_pages(&self, offset: u64, size: u64) -> io::Result<()> {
        let is_inside = offset.checked_add(size).is_some_and(|end| end <= self.region.size);
        let (Ok(offset), Ok(size), true) =
            (usize::try_from(offset), usize::try_from(size), is_inside)
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // SAFETY: The range is within the accessible part of the mapping that `self` owns, which is
        // private: it stays mapped, and only its bytes change, which the volatile accesses of other
        // threads and of a guest tolerate. Nothing else refers to it.
        unsafe { madvise(self.start.wrapping_add(offset).cast(), size, Advice::LinuxDontNeed) }?;
        Ok(())
    }

    fn advise(&self, size: usize, backing: &Backing) -> Result<(), Error> {
        let advices = [
            (backing.thp, Advised::HugePages, Advice::LinuxHugepage),
            (backing.ksm, Advised::Merging, Advice::LinuxMergeable),
        ];
        for (_, advised, advice) in advices.into_iter().filter(|(wanted, ..)| *wanted) {
            // SAFETY: The range is within the mapping that `self` owns, and neither advice changes
            // what the memory holds or whether it is accessible.
            unsafe { madvise(self.start.cast(), size, advice) }
                .map_err(|errno| Error::Advise { advised, source: errno.into() })?;
        }
        Ok(())
    }

    /// Advises the host against huge pages in the first `size` bytes.
    pub(crate) fn disable_thp_for_head(&self, size: u64) {
        let size = usize::try_from(size.min(self.region.size)).unwrap_or(0);
        // SAFETY: The range is within the mapping that `self` owns, and the advice changes neither
        // what the memory holds nor whether it is accessible.
        let advised = unsafe { madvise(self.start.cast(), size, Advice::LinuxNoHugepage) };
        // A kernel without huge pages refuses, and gives none anyway.
        debug_assert!(advised.is_ok() || advised == Err(rustix::io::Errno::INVAL), "{advised:?}");
    }

    /// Number of resident bytes, in whole pages; `None` if the host does not report it.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        /// Number of pages in one query; the answer has a byte for each.
        const CHUNK: usize = 4096;
        let page = usize::try_from(PAGE).ok()?;
        let size = usize::try_from(self.region.size).ok()?;
        let mut total = 0_u64;
        let mut is_there = [0_u8; CHUNK];
        for start in (0..size).step_by(CHUNK.saturating_mul(page)) {
            let length = size.saturating_sub(start).min(CHUNK.saturating_mul(page));
            // SAFETY: the range is within the mapping that `self` owns; `is_there` has a byte for
            // each of its pages, of which there are at most CHUNK.
            let result = unsafe {
                libc::mincore(self.start.wrapping_add(start).cast(), length, is_there.as_mut_ptr())
            };
            if result != 0 {
                return None;
            }
            let pages = is_there.iter().take(length.div_ceil(page));
            let resident = pages.filter(|page| **page & 1 != 0).count() as u64;
            total = total.saturating_add(resident.saturating_mul(PAGE));
        }
        Some(total)
    }

    /// The host address of the first byte.
    pub(crate) fn host(&self) -> *mut u8 {
        self.start
    }
}

impl fmt::Debug for MappedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedRegion")
            .field("region", &self.region)
            .field("host", &self.start)
            .finish()
    }
}

impl Drop for MappedRegion {
    fn drop(&mut self) {
        // SAFETY: The mapping was made by `new`, is unmapped only here, and every slice of it
        // borrows from `self`.
        let result = unsafe { munmap(self.mapping.cast(), self.mapping_size) };
        debug_assert!(result.is_ok(), "unmapping guest RAM: {result:?}");
    }
}

impl GuestMemoryRegion for MappedRegion {
    // Where dirty tracking would go.
    type B = ();

    fn len(&self) -> u64 {
        self.region.size
    }

    fn start_addr(&self) -> GuestAddress {
        GuestAddress(self.region.start)
    }

    fn bitmap(&self) -> BS<'_, ()> {}

    fn get_host_address(&self, addr: MemoryRegionAddress) -> Result<*mut u8, GuestMemoryError> {
        let offset = self.check_address(addr).ok_or(GuestMemoryError::InvalidBackendAddress)?;
        let offset =
            usize::try_from(offset.0).map_err(|_| GuestMemoryError::InvalidBackendAddress)?;
        Ok(self.start.wrapping_add(offset))
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_, BS<'_, ()>>, GuestMemoryError> {
        let end = offset.0.checked_add(count as u64);
        if end.is_none_or(|end| end > self.region.size) {
            return Err(GuestMemoryError::InvalidBackendAddress);
        }
        let offset =
            usize::try_from(offset.0).map_err(|_| GuestMemoryError::InvalidBackendAddress)?;
        // SAFETY: offset + count is at most the region's size, so the slice is within the
        // accessible part of the mapping, which lives as long as `self`, from which the slice
        // borrows. All use is through such slices, or by the guest, whom volatile accesses are for.
        Ok(unsafe { VolatileSlice::new(self.start.wrapping_add(offset), count) })
    }
}

impl GuestMemoryRegionBytes for MappedRegion {}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes as _;

    use super::*;

    #[test]
    fn host_and_guest_addresses_agree_below_2_mib() {
        for start in [0, 0x1000, 0x1f_f000, 0x1_0000_0000, 0x1_0012_3000] {
            let mapped =
                MappedRegion::new(Region { start, size: 0x5000 }, &Backing::default()).unwrap();
            let host = mapped.host().addr() as u64;
            assert_eq!(host % LARGE_PAGE, start % LARGE_PAGE, "{start:#x}");
            let mapping = mapped.mapping.addr() as u64;
            assert!(host >= mapping && host + 0x5000 <= mapping + mapped.mapping_size as u64);
        }
    }

    #[test]
    fn only_pages_that_were_touched_count() {
        let size = 20 << 20;
        let mapped =
            MappedRegion::new(Region { start: 0x1000, size }, &Backing::default()).unwrap();
        let before = mapped.resident_bytes().unwrap();
        for offset in [0, 5 << 20, size - 1] {
            mapped.write_obj(1_u8, MemoryRegionAddress(offset)).unwrap();
        }
        // A host with transparent huge pages for all gives more at once.
        assert!(mapped.resident_bytes().unwrap() >= before + 3 * 4096);
    }

    #[test]
    fn a_head_kept_small_costs_what_is_touched() {
        let start = 0x1_0000_0000;
        let mapped =
            MappedRegion::new(Region { start, size: 4 << 20 }, &Backing::default()).unwrap();
        mapped.disable_thp_for_head(2 << 20);
        for offset in [0, 0x1_0000, (2 << 20) - 1] {
            mapped.write_obj(1_u8, MemoryRegionAddress(offset)).unwrap();
        }
        assert_eq!(mapped.resident_bytes(), Some(3 * 4096));
    }

    #[test]
    fn slices_end_with_the_region() {
        let mapped =
            MappedRegion::new(Region { start: 0x1000, size: 0x2000 }, &Backing::default()).unwrap();
        assert!(mapped.get_slice(MemoryRegionAddress(0), 0x2000).is_ok());
        assert!(mapped.get_slice(MemoryRegionAddress(0x2000), 0).is_ok());
        assert!(mapped.get_slice(MemoryRegionAddress(1), 0x2000).is_err());
        assert!(mapped.get_slice(MemoryRegionAddress(u64::MAX), 2).is_err());
        assert!(mapped.get_host_address(MemoryRegionAddress(0x1fff)).is_ok());
        assert!(mapped.get_host_address(MemoryRegionAddress(0x2000)).is_err());
    }

    #[test]
    fn memory_outside_the_region_is_inaccessible() {
        let mapped =
            MappedRegion::new(Region { start: 0x1000, size: 0x1000 }, &Backing::default()).unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let host = mapped.host().addr();
        let rights = |address: usize| {
            maps.lines()
                .find_map(|line| {
                    let (range, rest) = line.split_once(' ')?;
                    let (start, end) = range.split_once('-')?;
                    let start = usize::from_str_radix(start, 16).ok()?;
                    let end = usize::from_str_radix(end, 16).ok()?;
                    (start <= address && address < end).then(|| rest[..4].to_owned())
                })
                .unwrap_or_default()
        };
        assert_eq!(rights(host), "rw-p");
        assert_eq!(rights(host + 0xfff), "rw-p");
        assert_eq!(rights(host + 0x1000), "---p");
    }
}
