//! The parts of an ELF file of either class that PVH and multiboot use: segments at physical
//! addresses, entry point, notes.

use object::LittleEndian;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader as _};

use super::segments::PhysicalSegment;
use crate::{Error, Protocol};

const LE: LittleEndian = LittleEndian;
/// More program headers than this are refused; linkers make about a dozen.
const MAX_PROGRAM_HEADERS: usize = 128;
/// More notes than this are not looked at.
const MAX_NOTES: usize = 1024;

/// Segments, entry point and notes of an ELF file that is loaded at physical addresses.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// Loadable segments that take memory.
    pub(super) segments: Vec<PhysicalSegment>,
    /// The entry point as a physical address.
    pub(super) entry: u64,
    /// The address in a PVH note.
    pub(super) pvh_entry: Option<u64>,
}

/// A note's name, type and contents.
type Note<'a> = (&'a [u8], u32, &'a [u8]);

/// Reads a little-endian x86 program.
pub(super) fn parse(file: &[u8], protocol: Protocol) -> Result<Program, Error> {
    match file.get(4) {
        Some(1) => read::<FileHeader32<LittleEndian>>(file, protocol),
        _ => read::<FileHeader64<LittleEndian>>(file, protocol),
    }
}

/// Returns `true` if a note segment has one of Hermit's notes.
pub(crate) fn has_hermit_note(file: &[u8]) -> bool {
    let mut found = false;
    // Other faults of the file are reported when it is parsed.
    let _ = each_note(file, &mut |(name, ..)| found |= name == b"HERMIT");
    found
}

/// Returns `true` if a note has a PVH entry point.
pub(super) fn has_pvh_note(file: &[u8]) -> bool {
    let mut found = false;
    let _ = each_note(file, &mut |note| found |= pvh_entry(note).is_some());
    found
}

fn each_note<'a>(file: &'a [u8], visit: &mut dyn FnMut(Note<'a>)) -> Result<(), Error> {
    match file.get(4) {
        Some(1) => notes::<FileHeader32<LittleEndian>>(file, visit),
        _ => notes::<FileHeader64<LittleEndian>>(file, visit),
    }
}

/// The address in a note of name `Xen` and type `XEN_ELFNOTE_PHYS32_ENTRY` (Xen, public/elfnote.h).
fn pvh_entry((name, kind, contents): Note<'_>) -> Option<u64> {
    const PHYS32_ENTRY: u32 = 18;
    if name != b"Xen" || kind != PHYS32_ENTRY {
        return None;
    }
    match contents.len() {
        4 => super::u32_at(contents, 0).map(u64::from),
        8 => super::u64_at(contents, 0),
        _ => None,
    }
}

fn malformed(error: object::read::Error) -> Error {
    Error::Malformed(error.to_string())
}

/// The program headers, with their number bounded.
fn headers<H: FileHeader<Endian = LittleEndian>>(
    file: &[u8],
) -> Result<(&H, &[H::ProgramHeader]), Error> {
    let header = H::parse(file).map_err(malformed)?;
    if !header.is_little_endian() {
        return Err(Error::Malformed("a big-endian file, only x86 is supported".to_owned()));
    }
    let headers = header.program_headers(LE, file).map_err(malformed)?;
    if headers.len() > MAX_PROGRAM_HEADERS {
        let count = u32::try_from(headers.len()).unwrap_or(u32::MAX);
        let limit = u32::try_from(MAX_PROGRAM_HEADERS).unwrap_or(u32::MAX);
        return Err(Error::TooManySegments { count, limit });
    }
    Ok((header, headers))
}

fn notes<'a, H: FileHeader<Endian = LittleEndian>>(
    file: &'a [u8],
    visit: &mut dyn FnMut(Note<'a>),
) -> Result<(), Error> {
    let (_, headers) = headers::<H>(file)?;
    let mut seen = 0_usize;
    for header in headers {
        let Some(mut notes) = header.notes(LE, file).map_err(malformed)? else { continue };
        while let Some(note) = notes.next().map_err(malformed)? {
            visit((note.name(), note.n_type(LE).0, note.desc()));
            seen = seen.saturating_add(1);
            if seen >= MAX_NOTES {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn read<H: FileHeader<Endian = LittleEndian>>(
    file: &[u8],
    protocol: Protocol,
) -> Result<Program, Error> {
    let (header, headers) = headers::<H>(file)?;
    if !matches!(header.e_machine(LE), elf::EM_X86_64 | elf::EM_386) {
        return Err(Error::Kernel { protocol, problem: "built for another architecture than x86" });
    }
    let mut entry: u64 = header.e_entry(LE).into();
    let mut segments = Vec::new();
    let mut moved = None;
    for header in headers.iter().filter(|header| header.p_type(LE) == elf::PT_LOAD) {
        let segment = PhysicalSegment {
            address: header.p_paddr(LE).into(),
            memory_size: header.p_memsz(LE).into(),
            file_offset: header.p_offset(LE).into(),
            file_size: header.p_filesz(LE).into(),
        };
        if segment.memory_size == 0 && segment.file_size == 0 {
            continue;
        }
        // The header's entry point is a virtual address.
        let virtual_start: u64 = header.p_vaddr(LE).into();
        if let Some(offset) =
            entry.checked_sub(virtual_start).filter(|at| *at < segment.memory_size)
            && moved.is_none()
        {
            moved = segment.address.checked_add(offset);
        }
        segments.push(segment);
    }
    // One that lies in no virtual range is physical already, or in no segment, which is found
    // later.
    entry = moved.unwrap_or(entry);
    let mut pvh = None;
    notes::<H>(file, &mut |note| pvh = pvh.or(pvh_entry(note)))?;
    Ok(Program { segments, entry, pvh_entry: pvh })
}
