//! Relocations of a static-pie kernel (System V ABI AMD64 supplement, 4.4; gABI, "Relocation").

use std::ops::Range;

use object::elf::{self, Rela64, RelocationType, Sym64};
use object::read::elf::Sym as _;
use object::{LittleEndian, pod};

use super::LE;
use super::dynamic::Tables;
use crate::Error;
use crate::source::Source;

/// An entry of the table with addends.
pub(super) type Rela = Rela64<LittleEndian>;

/// Bytes of an entry of the table with addends, of the compact one, and of the symbol table.
const RELA_SIZE: u64 = size_of::<Rela>() as u64;
const RELR_SIZE: u64 = 8;
const SYMBOL_SIZE: u64 = size_of::<Sym64<LittleEndian>>() as u64;
/// Takes one piece of a table.
pub(super) type Visit<'a> = dyn FnMut(&[u8]) -> Result<(), Error> + 'a;

/// At least so many bytes of the symbol table are read at a time.
const SYMBOLS_AT_ONCE: u64 = 4096;

/// Number of relocations by kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RelocationCounts {
    /// `R_X86_64_RELATIVE`.
    pub relative: u64,
    /// Relative ones in compact form (`DT_RELR`).
    pub compact: u64,
    /// `R_X86_64_64`.
    pub absolute: u64,
    /// `R_X86_64_GLOB_DAT`.
    pub glob_dat: u64,
    /// Of the two before, those whose weak symbol is undefined, which become 0.
    pub weak: u64,
}

impl RelocationCounts {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        [self.compact, self.absolute, self.glob_dat]
            .into_iter()
            .fold(self.relative, u64::saturating_add)
    }
}

/// One relocation: 8 bytes at `place` (as linked, inside of the kernel's memory) get a new value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relocation {
    pub(super) place: u64,
    pub(super) value: Value,
}

/// The new value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// Start address plus this.
    Relative(u64),
    /// Start address plus what is there.
    RelativeInPlace,
    /// This.
    Fixed(u64),
}

/// The relocation tables of a kernel, read as they are gone through.
#[derive(Debug)]
pub(super) struct Relocations<'a> {
    tables: &'a Tables,
    source: &'a Source,
    memory_size: u64,
    /// Range of the table with addends in the loaded kernel, relative to its start.
    table: Range<u64>,
    /// The first bytes of the symbol table, as many as were needed so far: the number of symbols is
    /// said nowhere.
    symbols: Vec<u8>,
}

impl<'a> Relocations<'a> {
    /// The tables at the given places in the file, for a kernel of `memory_size` bytes.
    pub(super) fn new(tables: &'a Tables, source: &'a Source, memory_size: u64) -> Self {
        let size = tables.rela.end.saturating_sub(tables.rela.start);
        // Only relocatable kernels have tables, and those are linked at 0.
        let table = tables.rela_address..tables.rela_address.saturating_add(size);
        Self { tables, source, memory_size, table, symbols: Vec::new() }
    }

    /// Range of the table with addends in the kernel's memory, as linked.
    pub(super) fn table(&self) -> Range<u64> {
        self.table.clone()
    }

    /// Counts them and finds every error there can be.
    pub(super) fn check(&mut self) -> Result<RelocationCounts, Error> {
        let mut counts = RelocationCounts::default();
        // In the order in which they are applied, so that the first error is the same.
        self.each_compact(|_| {
            counts.compact = counts.compact.saturating_add(1);
            Ok(())
        })?;
        let (source, tables) = (self.source, self.tables);
        let in_file = |visit: &mut Visit<'_>| source.pieces(&tables.rela, RELA_SIZE, visit);
        self.each_rela(in_file, |relocations, rela| {
            if relocations.plain(rela).is_some() {
                counts.relative = counts.relative.saturating_add(1);
                return Ok(());
            }
            let counter = match rela.r_type(LE, false) {
                elf::R_X86_64_RELATIVE => &mut counts.relative,
                elf::R_X86_64_64 => &mut counts.absolute,
                elf::R_X86_64_GLOB_DAT => &mut counts.glob_dat,
                _ => &mut 0,
            };
            *counter = counter.saturating_add(1);
            if relocations.resolve(rela)?.is_some_and(|(_, weak)| weak) {
                counts.weak = counts.weak.saturating_add(1);
            }
            Ok(())
        })?;
        Ok(counts)
    }

    /// Calls `visit` for each entry of the table with addends, the pieces of which come from
    /// `pieces`.
    fn each_rela(
        &mut self,
        pieces: impl FnOnce(&mut Visit<'_>) -> Result<(), Error>,
        mut visit: impl FnMut(&mut Self, &Rela) -> Result<(), Error>,
    ) -> Result<(), Error> {
        pieces(&mut |piece| array(piece).iter().try_for_each(|rela| visit(self, rela)))
    }

    /// Calls `apply` for each relocation in order. `pieces` gives the table with addends as it is
    /// where the kernel is loaded.
    pub(super) fn each(
        &mut self,
        pieces: impl FnOnce(&mut Visit<'_>) -> Result<(), Error>,
        mut apply: impl FnMut(Relocation) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // In the order of the tables' introduction: compact ones read what is there, so they come
        // first.
        self.each_compact(&mut apply)?;
        self.each_rela(pieces, |relocations, rela| {
            if let Some((place, addend)) = relocations.plain(rela) {
                apply(Relocation { place, value: Value::Relative(addend) })
            } else if let Some((relocation, _)) = relocations.resolve(rela)? {
                apply(relocation)
            } else {
                Ok(())
            }
        })
    }

    /// Place and addend of what nearly all relocations are, in as few steps as there can be: a
    /// kernel has tens of thousands. `None` for others, and for what is wrong.
    #[inline]
    fn plain(&self, rela: &Rela) -> Option<(u64, u64)> {
        let place = rela.r_offset.get(LE);
        // A symbol, which is in the upper half, would have no meaning.
        let is_plain = rela.r_info.get(LE) == u64::from(elf::R_X86_64_RELATIVE.0);
        (is_plain && self.fits(place)).then(|| (place, rela.r_addend.get(LE).cast_unsigned()))
    }

    /// One relocation and whether it is against an undefined weak symbol; `None` if there is
    /// nothing to do.
    fn resolve(&mut self, rela: &Rela) -> Result<Option<(Relocation, bool)>, Error> {
        let place = rela.r_offset.get(LE);
        let addend = rela.r_addend.get(LE).cast_unsigned();
        let kind = rela.r_type(LE, false);
        let (value, weak) = match kind {
            elf::R_X86_64_NONE => return Ok(None),
            elf::R_X86_64_RELATIVE => (Value::Relative(addend), false),
            elf::R_X86_64_64 => self.symbol(place, rela.r_sym(LE, false), addend)?,
            // S alone: the addend has no meaning here.
            elf::R_X86_64_GLOB_DAT => self.symbol(place, rela.r_sym(LE, false), 0)?,
            _ => return Err(Error::RelocationKind { kind: kind_name(kind), place }),
        };
        self.check_place(place)?;
        Ok(Some((Relocation { place, value }, weak)))
    }

    /// Value of a symbol plus the addend, and whether the symbol is weak and undefined.
    fn symbol(&mut self, place: u64, index: u32, addend: u64) -> Result<(Value, bool), Error> {
        let symbol =
            self.read_symbol(index)?.ok_or(Error::RelocationSymbol { place, symbol: index })?;
        let value = symbol.st_value(LE).wrapping_add(addend);
        match symbol.st_shndx(LE) {
            elf::SHN_UNDEF if symbol.st_bind() == elf::STB_WEAK => Ok((Value::Fixed(0), true)),
            elf::SHN_UNDEF => Err(Error::UndefinedSymbol { name: self.name(&symbol) }),
            elf::SHN_ABS => Ok((Value::Fixed(value), false)),
            _ => Ok((Value::Relative(value), false)),
        }
    }

    /// An entry of the symbol table, if it has so many.
    fn read_symbol(&mut self, index: u32) -> Result<Option<Sym64<LittleEndian>>, Error> {
        let table = &self.tables.symbols;
        let room = table.end.saturating_sub(table.start);
        let end = u64::from(index).saturating_add(1).saturating_mul(SYMBOL_SIZE);
        if end > room {
            return Ok(None);
        }
        let known = self.symbols.len() as u64;
        if end > known {
            // Twice as many at least, so that there are few reads whatever the order they are asked
            // for in.
            let size = end.max(known.saturating_mul(2)).max(SYMBOLS_AT_ONCE).min(room);
            let Some(bytes) = self.source.part(table.start, size)? else { return Ok(None) };
            self.symbols = bytes.into_owned();
        }
        let symbols: &[Sym64<LittleEndian>] = array(&self.symbols);
        Ok(usize::try_from(index).ok().and_then(|index| symbols.get(index)).copied())
    }

    fn name(&self, symbol: &Sym64<LittleEndian>) -> String {
        let strings = &self.tables.strings;
        let start = strings.start.saturating_add(symbol.st_name(LE).into());
        let room = strings.end.checked_sub(start);
        let name = room.and_then(|room| self.source.name(start, room));
        name.unwrap_or_else(|| "?".to_owned())
    }

    /// Calls `apply` for each compact relocation (gABI, "Relative Relocation Table").
    ///
    /// Places have to ascend, as linkers make them, so that there are no more of them than the
    /// memory has room for, however the table looks.
    fn each_compact(
        &self,
        mut apply: impl FnMut(Relocation) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut next = 0;
        let mut relocate = |place: u64, next: &mut u64| {
            if place < *next {
                return Err(Error::RelocationPlace { place });
            }
            self.check_place(place)?;
            *next = place.saturating_add(8);
            apply(Relocation { place, value: Value::RelativeInPlace })
        };
        // The address that the lowest bit of the next bitmap stands for.
        let mut base: u64 = 0;
        self.source.pieces(&self.tables.relr, RELR_SIZE, |piece| {
            for entry in piece.as_chunks().0 {
                let entry = u64::from_le_bytes(*entry);
                if entry & 1 == 0 {
                    relocate(entry, &mut next)?;
                    base = entry.saturating_add(8);
                    continue;
                }
                let mut bits = entry >> 1;
                while bits != 0 {
                    let skip = u64::from(bits.trailing_zeros()).saturating_mul(8);
                    relocate(base.saturating_add(skip), &mut next)?;
                    bits &= bits.wrapping_sub(1);
                }
                base = base.saturating_add(63 * 8);
            }
            Ok(())
        })
    }

    fn check_place(&self, place: u64) -> Result<(), Error> {
        if self.fits(place) { Ok(()) } else { Err(Error::RelocationPlace { place }) }
    }

    /// Returns `true` if the 8 bytes at `place` are in the kernel and outside of the relocation
    /// table itself.
    #[inline]
    fn fits(&self, place: u64) -> bool {
        place.checked_add(8).is_some_and(|end| {
            end <= self.memory_size && (end <= self.table.start || self.table.end <= place)
        })
    }
}

/// As many whole entries as there are.
fn array<T: pod::Pod>(bytes: &[u8]) -> &[T] {
    let count = bytes.len().checked_div(size_of::<T>()).unwrap_or(0);
    pod::slice_from_bytes(bytes, count).map_or(&[], |(entries, _)| entries)
}

/// Name of a relocation type, such as `R_X86_64_IRELATIVE`.
fn kind_name(kind: RelocationType) -> String {
    let names = elf::machine_names(elf::EM_X86_64).r;
    names.name(kind).map_or_else(|| format!("{}", kind.0), str::to_owned)
}
