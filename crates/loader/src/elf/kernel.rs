//! [`Kernel`]: the parsed ELF file.

use std::sync::OnceLock;

use object::elf;
use object::read::elf::FileHeader as _;

use super::dynamic::{Dynamic, Tables};
use super::note::{Interface, KernelVersion, Notes};
use super::relocation::{RelocationCounts, Relocations};
use super::segment::{self, Segment, Tls};
use super::{LE, header, note};
use crate::bytes::Bytes;
use crate::{Error, Limits, Symbols};

/// A Hermit kernel with its application: an ELF file whose every number has been checked.
#[derive(Debug)]
pub struct Kernel {
    pub(super) bytes: Bytes,
    pub(super) segments: Vec<Segment>,
    pub(super) tables: Tables,
    relocatable: bool,
    entry: u64,
    standalone: bool,
    notes: Notes,
    tls: Option<Tls>,
    relocations: RelocationCounts,
    symbols: OnceLock<Symbols>,
}

impl Kernel {
    /// Parses an ELF file.
    ///
    /// # Errors
    ///
    /// Any [`Error`] that is about ELF files.
    pub fn parse(bytes: Vec<u8>, limits: &Limits) -> Result<Self, Error> {
        Self::from_bytes(Bytes::new(bytes), limits)
    }

    pub(crate) fn from_bytes(bytes: Bytes, limits: &Limits) -> Result<Self, Error> {
        let file = bytes.as_slice();
        let header = header::parse(file)?;
        let headers = header::program_headers(header, file)?;
        let relocatable = header.e_type(LE) == elf::ET_DYN;

        // Ordinary programs are the likeliest mistake, so libraries come before notes.
        let dynamic = Dynamic::parse(headers, file)?;
        dynamic.check_static(headers, file)?;
        let notes = note::parse(headers, file)?;
        let segments = segment::parse(headers, file, relocatable, limits.max_memory)?;
        let tls = segment::tls(headers, &segments)?;
        let entry = header.e_entry(LE);
        if !segment::contains(&segments, entry, 1) {
            return Err(Error::Entry { entry });
        }
        // Programs with a fixed address are loaded as they are.
        let tables = if relocatable { dynamic.tables(&segments, file)? } else { Tables::default() };
        let relocations = Relocations::new(&tables, file, span(&segments)).check()?;
        let standalone = header.e_ident().os_abi == elf::ELFOSABI_STANDALONE;
        let symbols = OnceLock::new();
        Ok(Self { bytes, segments, tables, relocatable, entry, standalone, notes, tls, relocations, symbols })
    }

    /// The entry point, as linked; [`crate::LoadedKernel::entry`] is where it was loaded.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Whether the kernel runs at any address (`ET_DYN`) or only at [`Self::fixed_start`] (`ET_EXEC`).
    #[must_use]
    pub fn is_relocatable(&self) -> bool {
        self.relocatable
    }

    /// The guest-physical address a kernel that is not relocatable has to be loaded at.
    #[must_use]
    pub fn fixed_start(&self) -> Option<u64> {
        (!self.relocatable).then_some(self.link_start())
    }

    /// The address of the first segment as linked: 0 if the kernel is relocatable.
    #[must_use]
    pub fn link_start(&self) -> u64 {
        self.segments.first().map_or(0, |first| first.address)
    }

    /// How many bytes of guest memory it needs, from the first byte of the first segment to the last of the last.
    #[must_use]
    pub fn mem_size(&self) -> u64 {
        span(&self.segments)
    }

    /// The kernel's version; kernels before 0.10 do not say.
    #[must_use]
    pub fn version(&self) -> Option<KernelVersion> {
        self.notes.version
    }

    /// The hypercall interface it speaks.
    #[must_use]
    pub fn interface(&self) -> Interface {
        self.notes.interface
    }

    /// The number in its `UHYVEIF` note, if it has one.
    #[must_use]
    pub fn interface_version(&self) -> Option<u32> {
        self.notes.interface_version
    }

    /// Whether the OS/ABI byte of the file is that of Hermit (255, standalone). Others load as well.
    #[must_use]
    pub fn is_standalone(&self) -> bool {
        self.standalone
    }

    /// The loadable segments, ascending, without overlap.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The thread-local storage template, as linked.
    #[must_use]
    pub fn tls(&self) -> Option<Tls> {
        self.tls
    }

    /// How many relocations are applied when it is loaded.
    #[must_use]
    pub fn relocations(&self) -> RelocationCounts {
        self.relocations
    }

    /// The ELF file.
    #[must_use]
    pub fn file(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Its symbol table, read on first use. Stripped and malformed ones are empty.
    pub fn symbols(&self) -> &Symbols {
        self.symbols.get_or_init(|| {
            let start = self.link_start();
            Symbols::parse(&self.bytes, start..start.saturating_add(self.mem_size()))
        })
    }
}

/// Bytes from the first of the first segment to the last of the last one.
fn span(segments: &[Segment]) -> u64 {
    match (segments.first(), segments.last()) {
        (Some(first), Some(last)) => last.end().saturating_sub(first.address),
        _ => 0,
    }
}
