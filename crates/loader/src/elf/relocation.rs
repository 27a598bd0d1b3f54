//! Relocations of a static-pie kernel (System V ABI AMD64 supplement, 4.4; gABI, "Relocation").

use object::elf::{self, Rela64, RelocationType, Sym64};
use object::read::elf::Sym as _;
use object::{LittleEndian, pod};

use super::LE;
use super::dynamic::Tables;
use crate::{Error, text};

/// How many relocations a kernel has, by kind.
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
        [self.compact, self.absolute, self.glob_dat].into_iter().fold(self.relative, u64::saturating_add)
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

/// The relocation tables of a kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relocations<'a> {
    rela: &'a [Rela64<LittleEndian>],
    relr: &'a [[u8; 8]],
    symbols: &'a [Sym64<LittleEndian>],
    strings: &'a [u8],
    memory_size: u64,
}

impl<'a> Relocations<'a> {
    /// The tables at the given places in the file, for a kernel of `memory_size` bytes.
    pub(super) fn new(tables: &Tables, file: &'a [u8], memory_size: u64) -> Self {
        let get = |range: &std::ops::Range<usize>| file.get(range.clone()).unwrap_or_default();
        Self {
            rela: array(get(&tables.rela)),
            relr: get(&tables.relr).as_chunks().0,
            symbols: array(get(&tables.symbols)),
            strings: get(&tables.strings),
            memory_size,
        }
    }

    /// Counts them and finds every error there can be.
    pub(super) fn check(&self) -> Result<RelocationCounts, Error> {
        let mut counts = RelocationCounts::default();
        for rela in self.rela {
            if self.plain(rela).is_some() {
                counts.relative = counts.relative.saturating_add(1);
                continue;
            }
            let counter = match rela.r_type(LE, false) {
                elf::R_X86_64_RELATIVE => &mut counts.relative,
                elf::R_X86_64_64 => &mut counts.absolute,
                elf::R_X86_64_GLOB_DAT => &mut counts.glob_dat,
                _ => &mut 0,
            };
            *counter = counter.saturating_add(1);
            if self.resolve(rela)?.is_some_and(|(_, weak)| weak) {
                counts.weak = counts.weak.saturating_add(1);
            }
        }
        self.each_compact(|_| {
            counts.compact = counts.compact.saturating_add(1);
            Ok(())
        })?;
        Ok(counts)
    }

    /// Calls `apply` for each relocation in order.
    pub(super) fn each(&self, mut apply: impl FnMut(Relocation) -> Result<(), Error>) -> Result<(), Error> {
        // In the order of the tables' introduction: compact ones read what is there, so they come first.
        self.each_compact(&mut apply)?;
        for rela in self.rela {
            if let Some((place, addend)) = self.plain(rela) {
                apply(Relocation { place, value: Value::Relative(addend) })?;
            } else if let Some((relocation, _)) = self.resolve(rela)? {
                apply(relocation)?;
            }
        }
        Ok(())
    }

    /// Place and addend of what nearly all relocations are, in as few steps as there can be: a kernel has tens of thousands. `None`
    /// for others, and for what is wrong.
    #[inline]
    fn plain(&self, rela: &Rela64<LittleEndian>) -> Option<(u64, u64)> {
        let place = rela.r_offset.get(LE);
        // A symbol, which is in the upper half, would have no meaning.
        let is_plain = rela.r_info.get(LE) == u64::from(elf::R_X86_64_RELATIVE.0);
        let fits = place.checked_add(8).is_some_and(|end| end <= self.memory_size);
        (is_plain && fits).then(|| (place, rela.r_addend.get(LE).cast_unsigned()))
    }

    /// One relocation and whether it is against an undefined weak symbol; `None` if there is nothing to do.
    fn resolve(&self, rela: &Rela64<LittleEndian>) -> Result<Option<(Relocation, bool)>, Error> {
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
    fn symbol(&self, place: u64, index: u32, addend: u64) -> Result<(Value, bool), Error> {
        let symbol = usize::try_from(index)
            .ok()
            .and_then(|index| self.symbols.get(index))
            .ok_or(Error::RelocationSymbol { place, symbol: index })?;
        let value = symbol.st_value(LE).wrapping_add(addend);
        match symbol.st_shndx(LE) {
            elf::SHN_UNDEF if symbol.st_bind() == elf::STB_WEAK => Ok((Value::Fixed(0), true)),
            elf::SHN_UNDEF => Err(Error::UndefinedSymbol { name: self.name(symbol) }),
            elf::SHN_ABS => Ok((Value::Fixed(value), false)),
            _ => Ok((Value::Relative(value), false)),
        }
    }

    fn name(&self, symbol: &Sym64<LittleEndian>) -> String {
        let name = usize::try_from(symbol.st_name(LE))
            .ok()
            .and_then(|start| self.strings.get(start..))
            .and_then(|names| names.split(|&byte| byte == 0).next());
        text::printable(name.unwrap_or(b"?"))
    }

    /// Calls `apply` for each compact relocation (gABI, "Relative Relocation Table").
    ///
    /// Places have to ascend, as linkers make them, so that there are no more of them than the memory has room
    /// for, however the table looks.
    fn each_compact(&self, mut apply: impl FnMut(Relocation) -> Result<(), Error>) -> Result<(), Error> {
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
        for entry in self.relr {
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
    }

    fn check_place(&self, place: u64) -> Result<(), Error> {
        match place.checked_add(8) {
            Some(end) if end <= self.memory_size => Ok(()),
            _ => Err(Error::RelocationPlace { place }),
        }
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
