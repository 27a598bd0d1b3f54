//! Guest RAM: mappings of host memory with checked, copying access.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use vm_memory::volatile_memory::VolatileSlice;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionCollection,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::mapping::MappedRegion;
use crate::{AccessError, Advised, Backing, CStrError, Error, LARGE_PAGE, PAGE, Region};

mod contents;
mod revert;
mod saved;

pub use contents::Contents;
pub use revert::Reverted;

/// The vm-memory type under [`GuestRam`].
pub type Memory = GuestRegionCollection<MappedRegion>;

/// One region of guest RAM as the host sees it: what a KVM memory slot is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Guest-physical address.
    pub guest: u64,
    /// Size in bytes.
    pub size: u64,
    /// Host-virtual address. Valid for as long as the [`GuestRam`] it comes from.
    pub host: *mut u8,
}

/// The RAM of one guest.
///
/// Memory starts out zeroed and is taken from the host page by page as it is touched. Clones share
/// it; it is unmapped with the last one. Accesses of several threads and of running vCPUs may
/// overlap in time: each copies whatever bytes are there, torn at worst, so read a value once and
/// check the copy.
#[derive(Debug, Clone)]
pub struct GuestRam {
    memory: Memory,
    regions: Vec<Region>,
    observer: Observer,
}

/// An observer of the writes that the VMM itself makes to guest RAM.
///
/// A processor in software keeps decoded instructions, which such a write may change.
pub trait WriteObserver: Send + Sync {
    /// Takes note that the `len` bytes at the guest-physical `addr` have changed.
    fn written(&self, addr: u64, len: u64);
}

/// The observer, if there is one.
#[derive(Clone, Default)]
struct Observer(Arc<OnceLock<Arc<dyn WriteObserver>>>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.0.get().is_some()).finish()
    }
}

impl GuestRam {
    /// Maps host memory for `regions`, in any order.
    ///
    /// # Errors
    ///
    /// The regions must not be empty, overlap or wrap, and be multiples of 4 KiB (2 MiB for huge
    /// pages). The host may have too little memory, or refuse what `backing` asks for.
    pub fn new(regions: &[Region], backing: &Backing) -> Result<Self, Error> {
        let mut regions = regions.to_vec();
        regions.sort_unstable();
        check_regions(&regions, backing)?;
        let mut mapped = Vec::with_capacity(regions.len());
        for region in &regions {
            mapped.push(MappedRegion::new(*region, backing)?);
        }
        let memory = Memory::from_regions(mapped).map_err(|_| Error::NoRegions)?;
        Ok(Self { memory, regions, observer: Observer::default() })
    }

    /// Sets the observer of writes; the first one counts. Clones share it.
    pub fn observe(&self, observer: Arc<dyn WriteObserver>) {
        // A second observer would be for the same guest.
        let _ = self.observer.0.set(observer);
    }

    /// Reports that the `len` bytes at `addr` were written through [`GuestRam::slices`] or
    /// [`GuestRam::inner`]. Other methods that write do so themselves.
    pub fn written(&self, addr: u64, len: u64) {
        if let Some(observer) = self.observer.0.get() {
            observer.written(addr, len);
        }
    }

    /// Asks the host not to back the first 2 MiB of the region that starts at `addr` with a huge
    /// page: a guest that touches only a few pages there then costs these and not 2 MiB of zeros.
    /// Without effect on a host without huge pages.
    pub fn disable_thp_for_head(&self, addr: u64) {
        if let Some(region) = self.memory.iter().find(|region| region.start_addr().0 == addr) {
            region.disable_thp_for_head(LARGE_PAGE);
        }
    }

    /// The regions, lowest first.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The total size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.regions.iter().fold(0, |sum, region| sum.saturating_add(region.size))
    }

    /// Number of resident bytes, in whole pages; `None` if the host does not report it.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.memory
            .iter()
            .try_fold(0_u64, |sum, region| Some(sum.saturating_add(region.resident_bytes()?)))
    }

    /// Each region with its host address, lowest first, for registration with a hypervisor.
    pub fn mappings(&self) -> impl Iterator<Item = Mapping> + '_ {
        self.memory.iter().map(|region| Mapping {
            guest: region.start_addr().0,
            size: region.len(),
            host: region.host(),
        })
    }

    /// The vm-memory object, for crates such as virtio-queue that work on it.
    #[must_use]
    pub fn inner(&self) -> &Memory {
        &self.memory
    }

    /// Checks that the `len` bytes at `addr` are all in RAM. No bytes are in RAM anywhere.
    ///
    /// # Errors
    ///
    /// [`AccessError`] if one of them is not.
    pub fn check(&self, addr: u64, len: u64) -> Result<(), AccessError> {
        let error = AccessError { addr, len };
        let mut next = addr;
        let end = addr.checked_add(len).ok_or(error)?;
        // Lowest region first, so adjoining ones are walked in order.
        for region in &self.regions {
            if next >= end {
                break;
            }
            if region.start <= next && next < region.end() {
                next = region.end();
            }
        }
        if next >= end { Ok(()) } else { Err(error) }
    }

    /// Copies the bytes at `addr` into `data`.
    ///
    /// # Errors
    ///
    /// [`AccessError`] if they are not all in RAM; `data` is then unchanged.
    pub fn read(&self, addr: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let error = AccessError { addr, len: data.len() as u64 };
        self.check(addr, error.len)?;
        if data.is_empty() {
            return Ok(());
        }
        self.memory.read_slice(data, GuestAddress(addr)).map_err(|_| error)
    }

    /// Copies `data` to `addr`.
    ///
    /// # Errors
    ///
    /// [`AccessError`] if the range is not all in RAM; guest memory is then unchanged.
    pub fn write(&self, addr: u64, data: &[u8]) -> Result<(), AccessError> {
        let error = AccessError { addr, len: data.len() as u64 };
        self.check(addr, error.len)?;
        if data.is_empty() {
            return Ok(());
        }
        self.memory.write_slice(data, GuestAddress(addr)).map_err(|_| error)?;
        self.written(addr, error.len);
        Ok(())
    }

    /// Sets the `len` bytes at `addr` to zero.
    ///
    /// # Errors
    ///
    /// [`AccessError`] if the range is not all in RAM; guest memory is then unchanged.
    pub fn zero(&self, addr: u64, len: u64) -> Result<(), AccessError> {
        const ZEROES: [u8; 4096] = [0; 4096];
        for slice in self.slices(addr, len)? {
            let mut offset = 0;
            while let Ok(rest) = slice.offset(offset)
                && !rest.is_empty()
            {
                rest.copy_from(&ZEROES[..]);
                offset = offset.saturating_add(ZEROES.len());
            }
        }
        self.written(addr, len);
        Ok(())
    }

    /// Gives the memory of the `len` bytes at `addr`, which are whole pages, back to the host. They
    /// read as zeros afterwards, or, where RAM is mapped from a file, as the file has them.
    ///
    /// # Errors
    ///
    /// Fails if they are not all in one region of RAM, or the host refuses, as for a part of a huge
    /// page; guest memory is then unchanged.
    pub fn discard(&self, addr: u64, len: u64) -> io::Result<()> {
        let region = self.memory.iter().find(|region| {
            let start = region.start_addr().0;
            start <= addr && addr.saturating_sub(start) < region.len()
        });
        let region = region.ok_or(io::ErrorKind::InvalidInput)?;
        if !addr.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        region.discard_pages(addr.saturating_sub(region.start_addr().0), len)?;
        self.written(addr, len);
        Ok(())
    }

    /// Copies an object of plain data out of guest RAM. `addr` need not be aligned.
    ///
    /// # Errors
    ///
    /// [`AccessError`] if it is not all in RAM.
    pub fn read_obj<T: FromBytes + IntoBytes>(&self, addr: u64) -> Result<T, AccessError> {
        let mut value = T::new_zeroed();
        self.read(addr, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies an object of plain data into guest RAM. `addr` need not be aligned.
    ///
    /// # Errors
    ///
    /// [`AccessError`] if it is not all in RAM; guest memory is then unchanged.
    pub fn write_obj<T: IntoBytes + Immutable>(
        &self,
        addr: u64,
        value: &T,
    ) -> Result<(), AccessError> {
        self.write(addr, value.as_bytes())
    }

    /// Copies a NUL-terminated string out of guest RAM, without its NUL.
    ///
    /// The string is at most `max` bytes long, so a guest cannot make the host copy more than that.
    /// It may end with the last byte of RAM.
    ///
    /// # Errors
    ///
    /// [`CStrError::TooLong`] if there is no NUL in the first `max + 1` bytes,
    /// [`CStrError::Access`] if RAM ends before a NUL is found.
    pub fn read_cstr(&self, addr: u64, max: usize) -> Result<Vec<u8>, CStrError> {
        const CHUNK: usize = 256;
        let mut string = Vec::new();
        let mut buffer = [0; CHUNK];
        let limit = max.saturating_add(1);
        while string.len() < limit {
            let done = string.len() as u64;
            let next = addr.checked_add(done).ok_or(AccessError { addr, len: done })?;
            let want = limit.saturating_sub(string.len()).min(CHUNK);
            let available = self.available(next, want);
            let Some(chunk) = buffer.get_mut(..available).filter(|chunk| !chunk.is_empty()) else {
                return Err(AccessError { addr, len: done.saturating_add(1) }.into());
            };
            self.read(next, chunk)?;
            // Searched in the copy: the guest may be changing the original.
            let end = chunk.iter().position(|&byte| byte == 0);
            string.extend(chunk.iter().take(end.unwrap_or(available)));
            if end.is_some() {
                return Ok(string);
            }
        }
        Err(CStrError::TooLong { addr, max })
    }

    /// The host memory behind a range, in order, as one piece per region it touches: for vectored
    /// reads and writes of files without a copy in between.
    ///
    /// # Errors
    ///
    /// [`AccessError`] if the range is not all in RAM.
    pub fn slices(
        &self,
        addr: u64,
        len: u64,
    ) -> Result<impl Iterator<Item = VolatileSlice<'_>>, AccessError> {
        self.check(addr, len)?;
        let len = usize::try_from(len).map_err(|_| AccessError { addr, len })?;
        // After the check no piece can fail.
        Ok(self.memory.get_slices(GuestAddress(addr), len).map_while(Result::ok))
    }

    /// Number of the `want` bytes at `addr` that lie in the region of `addr`.
    fn available(&self, addr: u64, want: usize) -> usize {
        let region = self.regions.iter().find(|region| region.start <= addr && addr < region.end());
        let rest = region.map_or(0, |region| region.end().saturating_sub(addr));
        usize::try_from(rest).unwrap_or(usize::MAX).min(want)
    }
}

fn check_regions(sorted: &[Region], backing: &Backing) -> Result<(), Error> {
    if sorted.is_empty() {
        return Err(Error::NoRegions);
    }
    let unit = if backing.hugepages { LARGE_PAGE } else { PAGE };
    for &region in sorted {
        let bad = |reason| Err(Error::BadRegion { region, reason });
        if region.size == 0 {
            return bad("is empty");
        }
        if region.start.checked_add(region.size).is_none() {
            return bad("runs over the end of the address space");
        }
        if !region.start.is_multiple_of(unit) || !region.size.is_multiple_of(unit) {
            return bad("address and size must be multiples of the page size");
        }
    }
    for (&first, &second) in sorted.iter().zip(sorted.iter().skip(1)) {
        if first.overlaps(&second) {
            return Err(Error::Overlap { first, second });
        }
    }
    if backing.hugepages && backing.thp {
        return Err(Error::Conflict { with: Advised::HugePages });
    }
    if backing.hugepages && backing.ksm {
        return Err(Error::Conflict { with: Advised::Merging });
    }
    Ok(())
}

#[cfg(test)]
#[path = "ram_test.rs"]
mod tests;
