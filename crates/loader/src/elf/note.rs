//! The kernel's notes (gABI, "Note Section").
//!
//! As in `hermit-entry`, only the first `PT_NOTE` segment counts.

use std::fmt;

use object::elf;
use object::read::elf::{NoteIterator, ProgramHeader as _};

use super::{Header, LE, ProgramHeader};
use crate::Error;
use crate::source::Source;

/// Type of the note `HERMIT` with the entry version, one byte.
const NT_HERMIT_ENTRY_VERSION: u32 = 0x5a00;
/// Type of the note `UHYVEIF` with the hypercall interface version, a **big-endian** u32.
const NT_UHYVE_INTERFACE_VERSION: u32 = 0x5b00;
/// Type of the note `GNU` with an operating system and its version, four little-endian u32.
const NT_GNU_ABI_TAG: u32 = 1;
/// Number of Hermit in the ABI tag.
const ELF_NOTE_OS_HERMIT: u32 = 6;
/// The only entry version there is support for.
const ENTRY_VERSION: u8 = 4;

/// Version of a Hermit kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelVersion {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Patch version.
    pub patch: u32,
}

impl KernelVersion {
    /// A version of its parts, to compare with.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The hypercall interface that a kernel speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interface {
    /// Version 1: 32-bit addresses in EAX, guest-virtual buffers. Kernels without a `UHYVEIF` note
    /// speak it.
    V1,
    /// Version 2 (and 3, which is the same on x86-64): 64-bit addresses in RDI, guest-physical
    /// buffers.
    V2,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// Content of the notes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Notes {
    /// Kernel version; kernels before 0.10 have none.
    pub(super) version: Option<KernelVersion>,
    /// Number in the `UHYVEIF` note.
    pub(super) interface_version: Option<u32>,
    /// The interface that number stands for.
    pub(super) interface: Interface,
}

/// Reads the notes and checks that this kernel can be entered and answered.
pub(super) fn parse(headers: &[ProgramHeader], source: &Source) -> Result<Notes, Error> {
    let mut segments = headers.iter().filter(|header| header.p_type(LE) == elf::PT_NOTE);
    let first =
        segments.next().map(|header| collect(header, source)).transpose()?.unwrap_or_default();
    let Some(entry_version) = first.entry_version else {
        let later = segments
            .any(|header| collect(header, source).is_ok_and(|found| found.entry_version.is_some()));
        return Err(Error::NoNote { later });
    };
    if entry_version != ENTRY_VERSION {
        return Err(Error::EntryVersion { found: entry_version });
    }
    let interface = match first.interface_version {
        None | Some(1) => Interface::V1,
        Some(2 | 3) => Interface::V2,
        Some(found) => return Err(Error::InterfaceVersion { found }),
    };
    Ok(Notes { version: first.version, interface_version: first.interface_version, interface })
}

/// The notes of one segment as they are; of several of the same kind the first.
#[derive(Default)]
struct Found {
    entry_version: Option<u8>,
    interface_version: Option<u32>,
    version: Option<KernelVersion>,
}

fn collect(header: &ProgramHeader, source: &Source) -> Result<Found, Error> {
    let mut found = Found::default();
    let bytes = super::header::small_segment(source, header, "the note segment")?;
    let mut notes = NoteIterator::<Header>::new(LE, header.p_align(LE), &bytes)
        .map_err(super::header::malformed)?;
    while let Some(note) = notes.next().map_err(super::header::malformed)? {
        match (note.name(), note.n_type(LE).0) {
            (b"HERMIT", NT_HERMIT_ENTRY_VERSION) => {
                let version = note.desc().first().copied().ok_or_else(|| bad_note("HERMIT"))?;
                found.entry_version.get_or_insert(version);
            }
            (b"UHYVEIF", NT_UHYVE_INTERFACE_VERSION) => {
                let version = note.desc().try_into().map_err(|_| bad_note("UHYVEIF"))?;
                found.interface_version.get_or_insert(u32::from_be_bytes(version));
            }
            (b"GNU", NT_GNU_ABI_TAG) => {
                if let Some(version) = abi_tag(note.desc()) {
                    found.version.get_or_insert(version);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The kernel version, if the ABI tag is Hermit's.
fn abi_tag(desc: &[u8]) -> Option<KernelVersion> {
    let (words, rest) = desc.as_chunks::<4>();
    let &[system, major, minor, patch] = words else { return None };
    let [system, major, minor, patch] = [system, major, minor, patch].map(u32::from_le_bytes);
    (rest.is_empty() && system == ELF_NOTE_OS_HERMIT).then_some(KernelVersion {
        major,
        minor,
        patch,
    })
}

fn bad_note(name: &str) -> Error {
    Error::Malformed(format!("the note {name} is too short or too long"))
}
