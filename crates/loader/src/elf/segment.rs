//! Loadable segments and thread-local storage (gABI, "Program Header").

use std::fmt;
use std::ops::Range;

use object::elf;
use object::read::elf::ProgramHeader as _;

use super::{LE, ProgramHeader};
use crate::Error;
use crate::source::Source;

/// A loadable segment. Addresses are as linked: add the start address for a relocatable kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First address.
    pub address: u64,
    /// Bytes in memory; those beyond the file's bytes are zero.
    pub memory_size: u64,
    /// Offset of the segment's bytes in the ELF file.
    pub file_offset: u64,
    /// Number of bytes that come from the ELF file; the rest are zero.
    pub file_size: u64,
    /// Alignment asked for, in bytes; 0 and 1 mean none.
    pub align: u64,
    /// Access flags. The boot page tables do not enforce them.
    pub flags: SegmentFlags,
}

impl Segment {
    /// The address after the last one; parsing checks that there is one.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.memory_size)
    }
}

/// Access that a segment asks for; shown like `rw-`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFlags {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Executing.
    pub execute: bool,
}

impl fmt::Display for SegmentFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (set, letter) in [(self.read, "r"), (self.write, "w"), (self.execute, "x")] {
            f.write_str(if set { letter } else { "-" })?;
        }
        Ok(())
    }
}

/// The thread-local storage template, which the kernel sets up itself (ELF Handling for
/// Thread-Local Storage).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tls {
    /// First address of the initial bytes: as linked in [`crate::Kernel::tls`], as loaded in
    /// [`crate::LoadedKernel`].
    pub start: u64,
    /// Number of initial bytes.
    pub filesz: u64,
    /// Bytes of each thread's copy.
    pub memsz: u64,
    /// Alignment in bytes; 0 and 1 mean none.
    pub align: u64,
}

/// The segments of a kernel, ascending, none empty, none overlapping.
pub(super) fn parse(
    headers: &[ProgramHeader],
    source: &Source,
    relocatable: bool,
    max_memory: u64,
) -> Result<Vec<Segment>, Error> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut last_index = 0;
    for (index, header) in headers.iter().enumerate() {
        if header.p_type(LE) != elf::PT_LOAD
            || (header.p_memsz(LE) == 0 && header.p_filesz(LE) == 0)
        {
            continue;
        }
        let segment = check(index, header, source)?;
        if segments.last().is_some_and(|last| last.end() > segment.address) {
            return Err(Error::SegmentOrder { first: last_index, second: index });
        }
        segments.push(segment);
        last_index = index;
    }
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
        return Err(Error::NoSegments);
    };
    if relocatable && first.address != 0 {
        return Err(Error::LinkAddress { address: first.address });
    }
    let size = last.end().saturating_sub(first.address);
    if size > max_memory {
        return Err(Error::MemorySize { size, limit: max_memory });
    }
    Ok(segments)
}

/// One loadable segment, if its numbers are possible.
fn check(index: usize, header: &ProgramHeader, source: &Source) -> Result<Segment, Error> {
    let problem = |problem| Err(Error::Segment { index, problem });
    let segment = Segment {
        address: header.p_vaddr(LE),
        memory_size: header.p_memsz(LE),
        file_offset: header.p_offset(LE),
        file_size: header.p_filesz(LE),
        align: header.p_align(LE),
        flags: flags(header.p_flags(LE)),
    };
    if segment.file_size > segment.memory_size {
        return problem("more bytes in the file than in memory");
    }
    if segment.align > 1 && !segment.align.is_power_of_two() {
        return problem("the alignment is not a power of two");
    }
    if segment.address.checked_add(segment.memory_size).is_none() {
        return problem("the address range is beyond 64 bits");
    }
    let Some(file_end) = segment.file_offset.checked_add(segment.file_size) else {
        return problem("the file range is beyond 64 bits");
    };
    if file_end > source.size() {
        return Err(super::header::truncated(source, "a segment", file_end));
    }
    Ok(segment)
}

fn flags(flags: elf::ProgramFlags) -> SegmentFlags {
    let has = |flag: elf::ProgramFlags| flags.0 & flag.0 != 0;
    SegmentFlags { read: has(elf::PF_R), write: has(elf::PF_W), execute: has(elf::PF_X) }
}

/// The thread-local storage template, if there is one: the first, as there can be only one.
pub(super) fn tls(headers: &[ProgramHeader], segments: &[Segment]) -> Result<Option<Tls>, Error> {
    let Some(header) = headers.iter().find(|header| header.p_type(LE) == elf::PT_TLS) else {
        return Ok(None);
    };
    let tls = Tls {
        start: header.p_vaddr(LE),
        filesz: header.p_filesz(LE),
        memsz: header.p_memsz(LE),
        align: header.p_align(LE),
    };
    if tls.filesz > tls.memsz {
        return Err(Error::Tls("more bytes in the file than in memory"));
    }
    if tls.align > 1 && !tls.align.is_power_of_two() {
        return Err(Error::Tls("the alignment is not a power of two"));
    }
    if tls.start.checked_add(tls.memsz).is_none() {
        return Err(Error::Tls("the address range is beyond 64 bits"));
    }
    // The rest of the template (.tbss) takes no room in memory, so only the initial bytes have to
    // be there.
    if tls.filesz > 0 && !contains(segments, tls.start, tls.filesz) {
        return Err(Error::Tls("the initial bytes are outside of all loadable segments"));
    }
    Ok(Some(tls))
}

/// Returns `true` if one segment has the whole range in memory.
pub(super) fn contains(segments: &[Segment], address: u64, size: u64) -> bool {
    segments.iter().any(|segment| {
        address >= segment.address
            && address.checked_add(size).is_some_and(|end| end <= segment.end())
    })
}

/// The bytes of the file that are loaded from `address` on, up to the end of their segment.
pub(super) fn file_from(segments: &[Segment], file_size: u64, address: u64) -> Option<Range<u64>> {
    let segment = segments.iter().find(|segment| contains(&[**segment], address, 1))?;
    let skip = address.checked_sub(segment.address)?;
    let size = segment.file_size.checked_sub(skip)?;
    let start = segment.file_offset.checked_add(skip)?;
    let end = start.checked_add(size)?;
    (end <= file_size).then_some(start..end)
}
