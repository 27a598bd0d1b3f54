//! The ELF file header and the program headers: is this a 64-bit x86-64 program at all?

use object::elf;
use object::read::elf::FileHeader as _;

use super::{Header, LE, ProgramHeader};
use crate::Error;

/// The first bytes of each ELF file.
pub(crate) const MAGIC: &[u8] = &elf::ELFMAG;
/// More program headers than this are refused; linkers make about a dozen.
const MAX_PROGRAM_HEADERS: u32 = 128;
/// Size of the file header.
const HEADER_SIZE: u64 = size_of::<Header>() as u64;

/// The file header, if the file is a 64-bit little-endian x86-64 program.
pub(super) fn parse(bytes: &[u8]) -> Result<&Header, Error> {
    check_ident(bytes)?;
    let header = Header::parse(bytes).map_err(|_| truncated(bytes, "the file header", HEADER_SIZE))?;
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

/// Checks class and byte order (gABI, "ELF Identification"), naming the machine where they are wrong.
///
/// The machine is at the same place for both classes, so it is looked for by hand here.
fn check_ident(bytes: &[u8]) -> Result<(), Error> {
    let &[_, _, _, _, class, data, version, ..] = bytes else {
        return Err(truncated(bytes, "the file header", HEADER_SIZE));
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
pub(super) fn program_headers<'a>(header: &Header, bytes: &'a [u8]) -> Result<&'a [ProgramHeader], Error> {
    let count = header.phnum(LE, bytes).map_err(malformed)?;
    if count > MAX_PROGRAM_HEADERS {
        return Err(Error::TooManySegments { count, limit: MAX_PROGRAM_HEADERS });
    }
    let size = u64::from(count).saturating_mul(size_of::<ProgramHeader>() as u64);
    let end = header.e_phoff(LE).saturating_add(size);
    if end > bytes.len() as u64 {
        return Err(truncated(bytes, "the program header table", end));
    }
    header.program_headers(LE, bytes).map_err(malformed)
}

/// An error for a part of the file that would end at `needed`.
pub(super) fn truncated(bytes: &[u8], what: &'static str, needed: u64) -> Error {
    Error::Truncated { what, needed, size: bytes.len() as u64 }
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
