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
use crate::source::Source;
use crate::{Error, Limits, Symbols};

/// A Hermit kernel with its application: an ELF file whose every number has been checked.
#[derive(Debug)]
pub struct Kernel {
    pub(super) source: Source,
    pub(super) segments: Vec<Segment>,
    pub(super) tables: Tables,
    relocatable: bool,
    entry: u64,
    standalone: bool,
    notes: Notes,
    tls: Option<Tls>,
    relocations: OnceLock<RelocationCounts>,
    symbols: OnceLock<Symbols>,
}

impl Kernel {
    /// Parses an ELF file.
    ///
    /// # Errors
    ///
    /// Any [`Error`] that is about ELF files.
    pub fn parse(bytes: Vec<u8>, limits: &Limits) -> Result<Self, Error> {
        Self::from_source(Source::Memory(Bytes::new(bytes)), limits)
    }

    pub(crate) fn from_source(source: Source, limits: &Limits) -> Result<Self, Error> {
        let header = header::parse(&source)?;
        let headers = header::program_headers(&header, &source)?;
        let relocatable = header.e_type(LE) == elf::ET_DYN;

        // Ordinary programs are the likeliest mistake, so libraries come before notes.
        let dynamic = Dynamic::parse(&headers, &source)?;
        dynamic.check_static(&headers, &source)?;
        let notes = note::parse(&headers, &source)?;
        let segments = segment::parse(&headers, &source, relocatable, limits.max_memory)?;
        let tls = segment::tls(&headers, &segments)?;
        let entry = header.e_entry(LE);
        if !segment::contains(&segments, entry, 1) {
            return Err(Error::Entry { entry });
        }
        // Programs with a fixed address are loaded as they are.
        let tables =
            if relocatable { dynamic.tables(&segments, &source)? } else { Tables::default() };
        let relocations = OnceLock::new();
        if let Source::Memory(_) = source {
            // Of a file they are read once, when they are applied, and checked then.
            let counts = Relocations::new(&tables, &source, span(&segments)).check()?;
            relocations.get_or_init(|| counts);
        }
        let standalone = header.e_ident().os_abi == elf::ELFOSABI_STANDALONE;
        let symbols = OnceLock::new();
        Ok(Self {
            source,
            segments,
            tables,
            relocatable,
            entry,
            standalone,
            notes,
            tls,
            relocations,
            symbols,
        })
    }

    /// The entry point, as linked; [`crate::LoadedKernel::entry`] is where it was loaded.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// `true` if the kernel runs at any address (`ET_DYN`), `false` if only at
    /// [`Self::fixed_start`] (`ET_EXEC`).
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

    /// Size in bytes of the guest memory that the kernel takes, from the start of its first segment
    /// to the end of its last.
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

    /// Returns `true` if the OS/ABI byte of the file is that of Hermit (255, standalone). Others
    /// load as well.
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

    /// Number of relocations that [`Self::load`] applies, by kind. All are zero if a kernel that is
    /// read from its file on demand has relocations that `load` refuses.
    #[must_use]
    pub fn relocations(&self) -> RelocationCounts {
        let count = || Relocations::new(&self.tables, &self.source, self.mem_size()).check();
        *self.relocations.get_or_init(|| count().unwrap_or_default())
    }

    /// Its symbol table, read on first use. Stripped and malformed ones are empty, and so is that
    /// of a file which cannot be read any more.
    pub fn symbols(&self) -> &Symbols {
        self.symbols.get_or_init(|| {
            let start = self.link_start();
            let range = start..start.saturating_add(self.mem_size());
            self.source.whole().map(|file| Symbols::parse(&file, range)).unwrap_or_default()
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
