//! Multiboot 1 kernels (Multiboot Specification 0.6.96, 3.1): ELF files, and others that say
//! themselves where they are loaded (the "a.out kludge").

use super::segments::PhysicalSegment;
use super::{SegmentedKernel, elf, u32_at, wrong};
use crate::bytes::Bytes;
use crate::{Error, Limits, Protocol};

const MAGIC: u32 = 0x1bad_b002;
/// The header is within so many bytes of the file's beginning.
const SEARCH: usize = 8192;
/// It is aligned to 4 bytes.
const ALIGN: usize = 4;
/// Flag: modules at page boundaries, which they are anyway.
const PAGE_ALIGN: u32 = 1;
/// Flag: memory information, which is there anyway.
const MEMORY: u32 = 1 << 1;
/// Flag: a video mode, which there is not.
const VIDEO: u32 = 1 << 2;
/// Bits that a loader must understand.
const MANDATORY: u32 = 0xffff;
/// Flag: the address fields are valid.
const ADDRESSES: u32 = 1 << 16;

/// A multiboot kernel.
#[derive(Debug, Clone)]
pub struct Multiboot {
    kernel: SegmentedKernel,
    has_addresses: bool,
}

/// Finds the header: its offset and flags.
fn header(bytes: &[u8]) -> Option<(usize, u32)> {
    let end = bytes.len().min(SEARCH);
    (0..end).step_by(ALIGN).find_map(|offset| {
        let word = |index: usize| u32_at(bytes, offset.checked_add(index.checked_mul(4)?)?);
        let (magic, flags, checksum) = (word(0)?, word(1)?, word(2)?);
        let sum = magic.wrapping_add(flags).wrapping_add(checksum);
        (magic == MAGIC && sum == 0).then_some((offset, flags))
    })
}

/// Returns `true` if a file has a multiboot header.
pub(crate) fn is_multiboot(bytes: &[u8]) -> bool {
    header(bytes).is_some()
}

impl Multiboot {
    pub(crate) fn from_bytes(bytes: Bytes, limits: &Limits) -> Result<Self, Error> {
        let file = bytes.as_slice();
        let (offset, flags) = header(file).ok_or(Error::NotOfProtocol {
            protocol: Protocol::Multiboot,
            lacks: "a multiboot header in its first 8 KiB",
        })?;
        if flags & MANDATORY & !(PAGE_ALIGN | MEMORY | VIDEO) != 0 {
            return Err(wrong(
                Protocol::Multiboot,
                "it asks for something unknown; a newer monitor is needed",
            ));
        }
        let has_addresses = flags & ADDRESSES != 0;
        let kernel = if has_addresses {
            let (segments, entry) = addressed(file, offset)?;
            SegmentedKernel::new(bytes, segments, entry, limits)?
        } else if file.starts_with(crate::elf::MAGIC) {
            let program = elf::parse(file, Protocol::Multiboot)?;
            SegmentedKernel::new(bytes, program.segments, program.entry, limits)?
        } else {
            return Err(wrong(
                Protocol::Multiboot,
                "neither an ELF file nor one with load addresses",
            ));
        };
        Ok(Self { kernel, has_addresses })
    }

    /// Segments and entry point.
    #[must_use]
    pub fn kernel(&self) -> &SegmentedKernel {
        &self.kernel
    }

    /// Returns `true` if the load addresses come from the header itself and not from an ELF file.
    #[must_use]
    pub fn has_addresses(&self) -> bool {
        self.has_addresses
    }
}

/// The one segment that the address fields describe (3.1.3), and the entry point.
fn addressed(file: &[u8], offset: usize) -> Result<(Vec<PhysicalSegment>, u64), Error> {
    let problem = |problem| wrong(Protocol::Multiboot, problem);
    let field = |index: usize| {
        let at = index.checked_mul(4).and_then(|skip| offset.checked_add(skip));
        at.and_then(|at| u32_at(file, at))
            .map(u64::from)
            .ok_or_else(|| problem("the file ends within the header; copy or build it again"))
    };
    let (header, load, load_end, bss_end, entry) =
        (field(3)?, field(4)?, field(5)?, field(6)?, field(7)?);
    // The header's own place says where in the file the first loaded byte is.
    let before = header
        .checked_sub(load)
        .ok_or_else(|| problem("the header is not within what is loaded"))?;
    let start = (offset as u64)
        .checked_sub(before)
        .ok_or_else(|| problem("what is loaded begins before the file does"))?;
    let file_size = match load_end {
        // Everything to the file's end.
        0 => (file.len() as u64).saturating_sub(start),
        end => end.checked_sub(load).ok_or_else(|| problem("it ends before it begins"))?,
    };
    let memory_size = match bss_end {
        0 => file_size,
        end => end
            .checked_sub(load)
            .ok_or_else(|| problem("its .bss ends before it begins"))?
            .max(file_size),
    };
    Ok((vec![PhysicalSegment { address: load, memory_size, file_offset: start, file_size }], entry))
}
