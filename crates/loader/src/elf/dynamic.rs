//! The dynamic section (gABI, "Dynamic Section"): where the relocations are, and which libraries
//! are missing.

use std::ops::Range;

use object::elf::{self, Dyn64, DynamicTag};
use object::read::elf::{Dyn as _, ProgramHeader as _};
use object::{LittleEndian, pod};

use super::segment::{Segment, file_from};
use super::{LE, ProgramHeader};
use crate::Error;
use crate::source::Source;

/// The entries of the dynamic section that loading needs, as they are in the file.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Dynamic {
    needed: Option<u64>,
    strings: Option<u64>,
    symbols: Option<u64>,
    rela: Option<u64>,
    rela_size: u64,
    relr: Option<u64>,
    relr_size: u64,
    rel_size: u64,
    plt_size: u64,
}

/// File ranges of the tables that the dynamic section names.
#[derive(Debug, Default, Clone)]
pub(super) struct Tables {
    /// Relocations with addend, 24 bytes each.
    pub(super) rela: Range<u64>,
    /// Their address as linked: they are part of a segment.
    pub(super) rela_address: u64,
    /// Compact relative relocations, 8 bytes each.
    pub(super) relr: Range<u64>,
    /// Symbols from the first one to the end of the segment: the number of them is said nowhere.
    pub(super) symbols: Range<u64>,
    /// Their names, likewise.
    pub(super) strings: Range<u64>,
}

impl Dynamic {
    /// Reads the section; a kernel without one gets an empty one.
    pub(super) fn parse(headers: &[ProgramHeader], source: &Source) -> Result<Self, Error> {
        let mut dynamic = Self::default();
        let Some(header) = headers.iter().find(|header| header.p_type(LE) == elf::PT_DYNAMIC)
        else {
            return Ok(dynamic);
        };
        let bytes = super::header::small_segment(source, header, "the dynamic section")?;
        let entries: &[Dyn64<LittleEndian>] = pod::slice_from_all_bytes(&bytes)
            .map_err(|()| Error::Malformed("the dynamic section has a broken size".to_owned()))?;
        for entry in entries {
            let value = entry.val(LE);
            match entry.tag(LE) {
                elf::DT_NULL => break,
                elf::DT_NEEDED => dynamic.needed = dynamic.needed.or(Some(value)),
                elf::DT_STRTAB => dynamic.strings = Some(value),
                elf::DT_SYMTAB => dynamic.symbols = Some(value),
                elf::DT_RELA => dynamic.rela = Some(value),
                elf::DT_RELASZ => dynamic.rela_size = value,
                elf::DT_RELR => dynamic.relr = Some(value),
                elf::DT_RELRSZ => dynamic.relr_size = value,
                elf::DT_RELSZ => dynamic.rel_size = value,
                elf::DT_PLTRELSZ => dynamic.plt_size = value,
                tag @ (elf::DT_RELAENT | elf::DT_SYMENT) => check_entry_size(tag, value, 24)?,
                tag @ elf::DT_RELRENT => check_entry_size(tag, value, 8)?,
                _ => {}
            }
        }
        Ok(dynamic)
    }

    /// Refuses a program that needs shared libraries. Segments may still be unchecked: the name is
    /// a courtesy.
    pub(super) fn check_static(
        &self,
        headers: &[ProgramHeader],
        source: &Source,
    ) -> Result<(), Error> {
        let Some(needed) = self.needed else { return Ok(()) };
        let name = self.strings.and_then(|strings| {
            let address = strings.checked_add(needed)?;
            let header = headers.iter().find(|header| {
                header.p_type(LE) == elf::PT_LOAD
                    && address
                        .checked_sub(header.p_vaddr(LE))
                        .is_some_and(|skip| skip < header.p_filesz(LE))
            })?;
            let skip = address.checked_sub(header.p_vaddr(LE))?;
            let size = header.p_filesz(LE).checked_sub(skip)?;
            source.name(header.p_offset(LE).checked_add(skip)?, size)
        });
        Err(Error::Dynamic { library: name.unwrap_or_else(|| "?".to_owned()) })
    }

    /// Finds the tables in the file.
    pub(super) fn tables(&self, segments: &[Segment], source: &Source) -> Result<Tables, Error> {
        for (size, name) in [(self.rel_size, "DT_REL"), (self.plt_size, "DT_JMPREL")] {
            if size != 0 {
                return Err(Error::Malformed(format!(
                    "relocations in a {name} table are not supported; link as static-pie"
                )));
            }
        }
        let from = |address: Option<u64>| {
            address
                .and_then(|address| file_from(segments, source.size(), address))
                .unwrap_or_default()
        };
        Ok(Tables {
            rela_address: self.rela.unwrap_or(0),
            rela: table("DT_RELA", from(self.rela), self.rela_size, 24)?,
            relr: table("DT_RELR", from(self.relr), self.relr_size, 8)?,
            symbols: from(self.symbols),
            strings: from(self.strings),
        })
    }
}

/// The first `size` bytes of `room`, as a table of entries.
fn table(name: &str, room: Range<u64>, size: u64, entry_size: u64) -> Result<Range<u64>, Error> {
    if size == 0 {
        return Ok(0..0);
    }
    match room.start.checked_add(size) {
        Some(end) if end <= room.end && size.is_multiple_of(entry_size) => Ok(room.start..end),
        _ => Err(Error::Malformed(format!(
            "the {name} table of {size} bytes is outside of the file or has a broken size"
        ))),
    }
}

fn check_entry_size(tag: DynamicTag, size: u64, wanted: u64) -> Result<(), Error> {
    if size == wanted {
        return Ok(());
    }
    let name = tag.name().unwrap_or("an entry size");
    Err(Error::Malformed(format!("{name} is {size}, not {wanted}")))
}
