//! The ELF file header and the program headers: is this a 64-bit x86-64 program at all?

use std::borrow::Cow;

use object::elf;
use object::pod;
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use super::{Header, LE, ProgramHeader};
use crate::Error;
use crate::source::Source;

/// The first bytes of each ELF file.
pub(crate) const MAGIC: &[u8] = &elf::ELFMAG;
/// More program headers than this are refused; linkers make about a dozen.
const MAX_PROGRAM_HEADERS: u32 = 128;
/// A segment with notes or the dynamic section has no more bytes than this; in a kernel they are
/// some hundred.
const MAX_SMALL_SEGMENT: u64 = 1 << 20;
/// Size of the file header.
const HEADER_SIZE: u64 = size_of::<Header>() as u64;

/// The file header, if the file is a 64-bit little-endian x86-64 program.
pub(super) fn parse(source: &Source) -> Result<Header, Error> {
    let bytes = source.part(0, HEADER_SIZE.min(source.size()))?.unwrap_or_default();
    let short = || truncated(source, "the file header", HEADER_SIZE);
    check_ident(&bytes, short)?;
    let header = *Header::parse(&*bytes).map_err(|_| short())?;
    if header.e_machine(LE) != elf::EM_X86_64 {
        return Err(Error::WrongArchitecture { machine: machine(header.e_machine(LE)) });
    }
    match header.e_type(LE) {
        elf::ET_DYN | elf::ET_EXEC => Ok(header),
        elf::ET_REL => Err(Error::NotExecutable { found: "an object file (ET_REL)".to_owned() }),
        elf::ET_CORE => Err(Error::NotExecutable { found: "a core dump (ET_CORE)".to_owned() }),
        other => Err(Error::NotExecutable { found: format!("an ELF file of type {:#x}", other.0) }),
    }
}

/// Checks class and byte order (gABI, "ELF Identification"), naming the machine where they are
/// wrong.
///
/// The machine is at the same place for both classes, so it is looked for by hand here.
fn check_ident(bytes: &[u8], short: impl Fn() -> Error) -> Result<(), Error> {
    let &[_, _, _, _, class, data, version, ..] = bytes else {
        return Err(short());
    };
    let name = || match (bytes.get(18..20), data) {
        (Some(&[a, b]), 2) => machine(elf::Machine(u16::from_be_bytes([a, b]))),
        (Some(&[a, b]), _) => machine(elf::Machine(u16::from_le_bytes([a, b]))),
        _ => "an unknown machine".to_owned(),
    };
    match (class, data, version) {
        (1, _, _) => Err(Error::Class32 { machine: name() }),
        (2, 2, _) => Err(Error::BigEndian { machine: name() }),
        (2, 1, 1) => Ok(()),
        _ => Err(Error::Malformed(format!(
            "class {class}, byte order {data} and version {version} are unknown"
        ))),
    }
}

/// The program headers.
pub(super) fn program_headers(
    header: &Header,
    source: &Source,
) -> Result<Vec<ProgramHeader>, Error> {
    const ENTRY_SIZE: u64 = size_of::<ProgramHeader>() as u64;
    let (start, count) = (header.e_phoff(LE), u32::from(header.e_phnum(LE)));
    if start == 0 || count == 0 {
        return Ok(Vec::new());
    }
    // Among them is the number that stands for even more (PN_XNUM).
    if count > MAX_PROGRAM_HEADERS {
        return Err(Error::TooManySegments { count, limit: MAX_PROGRAM_HEADERS });
    }
    let size = u64::from(count).saturating_mul(ENTRY_SIZE);
    let end = start.saturating_add(size);
    if end > source.size() {
        return Err(truncated(source, "the program header table", end));
    }
    if u64::from(header.e_phentsize(LE)) != ENTRY_SIZE {
        return Err(Error::Malformed("Invalid ELF program header entry size".to_owned()));
    }
    let bytes = source.part(start, size)?.unwrap_or_default();
    let headers: &[ProgramHeader] = pod::slice_from_all_bytes(&bytes)
        .map_err(|()| Error::Malformed("the program header table has a broken size".to_owned()))?;
    Ok(headers.to_vec())
}

/// An error for a part of the file that would end at `needed`.
pub(super) fn truncated(source: &Source, what: &'static str, needed: u64) -> Error {
    Error::Truncated { what, needed, size: source.size() }
}

/// The bytes of a segment that is looked into: small in any kernel.
pub(super) fn small_segment<'a>(
    source: &'a Source,
    header: &ProgramHeader,
    what: &'static str,
) -> Result<Cow<'a, [u8]>, Error> {
    let (start, size) = (header.p_offset(LE), header.p_filesz(LE));
    if size > MAX_SMALL_SEGMENT {
        return Err(Error::Malformed(format!(
            "{what} has {size} bytes, at most {MAX_SMALL_SEGMENT} are supported"
        )));
    }
    let part = source.part(start, size)?;
    part.ok_or_else(|| truncated(source, what, start.saturating_add(size)))
}

/// An error of the `object` crate.
pub(super) fn malformed(error: object::read::Error) -> Error {
    Error::Malformed(error.to_string())
}

/// Name of a machine, such as `AARCH64`.
fn machine(machine: elf::Machine) -> String {
    match machine.name() {
        Some(name) => name.trim_start_matches("EM_").to_owned(),
        None => format!("machine {}", machine.0),
    }
}
