//! Segments of a kernel that is loaded at fixed guest-physical addresses.

use vm_memory::{Bytes as _, GuestAddress, GuestMemory, Permissions};

use crate::bytes::{self, Bytes};
use crate::{Error, Limits, Symbols};

/// A part of a kernel at a fixed guest-physical address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhysicalSegment {
    /// First address.
    pub address: u64,
    /// Bytes in memory; those beyond the file's bytes are zero.
    pub memory_size: u64,
    /// Offset of the segment's bytes in the file.
    pub file_offset: u64,
    /// Number of bytes that come from the file; the rest are zero.
    pub file_size: u64,
}

impl PhysicalSegment {
    /// The address after the last one; parsing checks that there is one, below 4 GiB.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.memory_size)
    }
}

/// A kernel that is loaded at the addresses it names.
#[derive(Debug, Clone)]
pub struct SegmentedKernel {
    bytes: Bytes,
    segments: Vec<PhysicalSegment>,
    entry: u64,
}

impl SegmentedKernel {
    /// Its functions, at their virtual addresses; none if the file is not a 64-bit ELF file.
    #[must_use]
    pub fn symbols(&self) -> Symbols {
        Symbols::parse(&self.bytes, 0..u64::MAX)
    }

    /// Checks everything that loading will use.
    pub(super) fn new(
        bytes: Bytes,
        mut segments: Vec<PhysicalSegment>,
        entry: u64,
        limits: &Limits,
    ) -> Result<Self, Error> {
        segments.sort_by_key(|segment| segment.address);
        let mut sum = 0_u64;
        for (index, segment) in segments.iter().enumerate() {
            let problem = |problem| Err(Error::Segment { index, problem });
            if segment.file_size > segment.memory_size {
                return problem("more bytes in the file than in memory");
            }
            if bytes::part(bytes.as_slice(), segment.file_offset, segment.file_size).is_none() {
                return problem("its bytes are beyond the end of the file; copy or build it again");
            }
            if segment.address.checked_add(segment.memory_size).is_none_or(|end| end > 1 << 32) {
                return problem("the physical address range is beyond 4 GiB");
            }
            sum = sum.saturating_add(segment.memory_size);
        }
        for (index, pair) in segments.windows(2).enumerate() {
            if let [first, second] = pair
                && first.end() > second.address
            {
                return Err(Error::SegmentOrder { first: index, second: index.saturating_add(1) });
            }
        }
        if segments.is_empty() {
            return Err(Error::NoSegments);
        }
        if sum > limits.max_memory {
            return Err(Error::MemorySize { size: sum, limit: limits.max_memory });
        }
        let inside = |segment: &PhysicalSegment| segment.address <= entry && entry < segment.end();
        if !segments.iter().any(inside) {
            return Err(Error::Entry { entry });
        }
        Ok(Self { bytes, segments, entry })
    }

    /// The segments, ascending, without overlap; none ends above 4 GiB.
    #[must_use]
    pub fn segments(&self) -> &[PhysicalSegment] {
        &self.segments
    }

    /// Guest-physical entry point, which is in one of the segments.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// The first address of the kernel.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.segments.first().map_or(0, |first| first.address)
    }

    /// The address after its last one.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.segments.last().map_or(0, PhysicalSegment::end)
    }

    /// Copies the kernel into **fresh memory**: what the file does not have must be zero already.
    ///
    /// # Errors
    /// [`Error::OutsideMemory`] if the memory has not all segments, in which case none of it is
    /// touched; [`Error::Memory`].
    pub fn load<M: GuestMemory + ?Sized>(&self, memory: &M) -> Result<(), Error> {
        for segment in &self.segments {
            let size = usize::try_from(segment.memory_size).unwrap_or(usize::MAX);
            if !memory.check_range(GuestAddress(segment.address), size, Permissions::ReadWrite) {
                return Err(Error::OutsideMemory { start: segment.address, end: segment.end() });
            }
        }
        for segment in &self.segments {
            let data = bytes::part(self.bytes.as_slice(), segment.file_offset, segment.file_size)
                .unwrap_or_default();
            memory.write_slice(data, GuestAddress(segment.address)).map_err(Error::Memory)?;
        }
        Ok(())
    }
}
