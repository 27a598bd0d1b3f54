//! Errors of guest memory.

use std::io;

use crate::{Advised, Region};

/// Guest RAM could not be laid out or obtained.
///
/// All of these are the host's or the user's business: they happen before the guest runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The memory size is zero or not a multiple of 2 MiB.
    #[error("guest memory of {size} bytes is not a positive multiple of 2 MiB")]
    BadSize {
        /// The size asked for, in bytes.
        size: u64,
        /// Next valid size in MiB.
        suggestion: u64,
    },
    /// The image and what it boots from need more memory than the guest has.
    #[error("the guest image does not fit in {given} MiB of guest memory, it needs {needed} MiB")]
    TooSmall {
        /// The size asked for, in MiB.
        given: u64,
        /// The smallest size that holds the image, in MiB.
        needed: u64,
    },
    /// No guest can hold this image, whatever its memory size.
    #[error(
        "the guest image takes {size:#x} bytes, which cannot be placed {place}: no guest memory size helps"
    )]
    ImageTooLarge {
        /// The image's size in memory, in bytes.
        size: u64,
        /// Source of the limit.
        place: &'static str,
    },
    /// A kernel linked to a fixed address leaves too little room below it for what the guest boots
    /// from.
    #[error(
        "the kernel is linked to {start:#x}, but the boot structures below it need it at {needed:#x} or higher: \
         link it as a position-independent executable, or higher"
    )]
    NoRoomBelowKernel {
        /// Link address of the kernel.
        start: u64,
        /// The lowest address it could have.
        needed: u64,
    },
    /// Guest memory ends above what the host CPU can address.
    #[error(
        "{size} MiB of guest memory would end at {end:#x}, above the {phys_bits} physical address bits of this host's CPU"
    )]
    BeyondHost {
        /// The memory size in MiB.
        size: u64,
        /// The first address after guest memory.
        end: u64,
        /// The host's physical address bits.
        phys_bits: u8,
    },
    /// A number of the request does not fit in 64 bits.
    #[error("the {what} of the guest is out of range")]
    OutOfRange {
        /// Which number.
        what: &'static str,
    },
    /// There is nothing to map.
    #[error("guest memory needs at least one region")]
    NoRegions,
    /// A region cannot be mapped as it is.
    #[error("guest memory region {region}: {reason}")]
    BadRegion {
        /// The region.
        region: Region,
        /// Description of the fault.
        reason: &'static str,
    },
    /// Two regions overlap.
    #[error("guest memory regions {first} and {second} overlap")]
    Overlap {
        /// The lower one.
        first: Region,
        /// The higher one.
        second: Region,
    },
    /// Two kinds of backing exclude each other.
    #[error("reserved huge pages cannot be combined with {with}")]
    Conflict {
        /// The other kind.
        with: Advised,
    },
    /// The host gave no memory.
    #[error("cannot obtain {size} MiB of guest memory")]
    Map {
        /// The size of the region, in MiB.
        size: u64,
        /// Error of mmap(2).
        source: io::Error,
    },
    /// The host has too few reserved huge pages.
    #[error("cannot obtain {pages} huge pages of 2 MiB for guest memory")]
    HugePages {
        /// Number of 2 MiB pages requested.
        pages: u64,
        /// Error of mmap(2).
        source: io::Error,
    },
    /// The host kernel refused an advice on guest memory.
    #[error("this host's kernel refuses {advised} for guest memory")]
    Advise {
        /// The advice.
        advised: Advised,
        /// Error of madvise(2).
        source: io::Error,
    },
}

/// An access outside guest RAM. Nothing was read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at guest-physical address {addr:#x} are not all in guest memory")]
pub struct AccessError {
    /// The guest-physical address of the first byte.
    pub addr: u64,
    /// The length in bytes.
    pub len: u64,
}

/// A string could not be read from guest RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CStrError {
    /// Guest RAM ends before the string does.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// There is no NUL byte within the allowed length.
    #[error("the string at guest-physical address {addr:#x} has no end within {max} bytes")]
    TooLong {
        /// The guest-physical address of its first byte.
        addr: u64,
        /// The allowed length in bytes, without the NUL.
        max: usize,
    },
}
