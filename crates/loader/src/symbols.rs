//! Names for addresses, for crash reports (gABI, "Symbol Table").

use std::fmt::{self, Write as _};
use std::ops::Range;

use object::elf::{self, FileHeader64, Sym64};
use object::read::elf::{FileHeader as _, SectionHeader as _, Sym as _};
use object::{LittleEndian, pod};

use crate::bytes::{self, Bytes};
use crate::text;

const LE: LittleEndian = LittleEndian;
/// More symbols than this are left out; a debug build of Hermit has some ten thousand.
const MAX_SYMBOLS: usize = 1 << 20;
/// Names are cut after this many bytes.
const MAX_NAME: usize = 4096;

/// The functions of a kernel, by address.
#[derive(Debug, Clone, Default)]
pub struct Symbols {
    names: Option<Bytes>,
    /// Sorted by address, one per address.
    symbols: Vec<Symbol>,
}

/// A symbol: 24 bytes, the name left in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Symbol {
    address: u64,
    /// 0 if unknown, as for most that are written in assembly.
    size: u64,
    name: u32,
    /// Preference among symbols at the same address; the highest is shown.
    rank: u8,
}

/// A place in the code, shown like `hermit::runtime_entry+0x1c`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Name of the function, demangled, safe to print.
    pub name: String,
    /// Bytes from the start of the function.
    pub offset: u64,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}", self.name, self.offset)
    }
}

impl Symbols {
    /// The function symbols of an ELF file with addresses in `range`, as linked.
    pub(crate) fn parse(file: &Bytes, range: Range<u64>) -> Self {
        Self::try_parse(file, range).unwrap_or_default()
    }

    fn try_parse(file: &Bytes, range: Range<u64>) -> Option<Self> {
        let bytes = file.as_slice();
        let header = FileHeader64::<LittleEndian>::parse(bytes).ok()?;
        let sections = header.section_headers(LE, bytes).ok()?;
        let table = sections.iter().find(|section| section.sh_type(LE) == elf::SHT_SYMTAB)?;
        let strings = sections.get(usize::try_from(table.sh_link(LE)).ok()?)?;
        let (offset, size) = strings.file_range(LE)?;
        let names = file.slice(bytes::file_range(offset, size)?)?;

        let data = table.data(LE, bytes).ok()?;
        let count = data.len().checked_div(size_of::<Sym64<LittleEndian>>())?.min(MAX_SYMBOLS);
        let (entries, _) = pod::slice_from_bytes::<Sym64<LittleEndian>>(data, count).ok()?;
        let mut symbols: Vec<Symbol> = entries
            .iter()
            .filter_map(Symbol::new)
            .filter(|symbol| range.contains(&symbol.address))
            .collect();
        // The best of an address first, which dedup then keeps.
        symbols.sort_unstable_by_key(|symbol| {
            (symbol.address, std::cmp::Reverse(symbol.rank), symbol.name)
        });
        symbols.dedup_by_key(|symbol| symbol.address);
        drop_inner_labels(&mut symbols);
        symbols.shrink_to_fit();
        Some(Self { names: Some(names), symbols })
    }

    /// Number of functions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Returns `true` if there are no functions, as in a stripped image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// The function that `address` is in, as linked: subtract the start address of a relocatable
    /// kernel.
    ///
    /// A symbol without a size reaches to the next one.
    #[must_use]
    pub fn lookup(&self, address: u64) -> Option<Location> {
        let (start, name) = self.get(self.find(address)?)?;
        Some(Location { name, offset: address.checked_sub(start)? })
    }

    /// Index of the function that `address` is in, as [`Self::lookup`] finds it.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<usize> {
        let index =
            self.symbols.partition_point(|symbol| symbol.address <= address).checked_sub(1)?;
        let symbol = self.symbols.get(index)?;
        let is_inside = symbol.size == 0 || address.wrapping_sub(symbol.address) < symbol.size;
        is_inside.then_some(index)
    }

    /// Address as linked of the function with this demangled name; the lowest if there are several.
    #[must_use]
    pub fn address_of(&self, name: &str) -> Option<u64> {
        let functions = (0..self.len()).filter_map(|index| self.get(index));
        functions.filter(|(_, other)| other == name).map(|(address, _)| address).min()
    }

    /// Address as linked and name, demangled and safe to print, of a function by its index, which
    /// is less than [`Self::len`].
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(u64, String)> {
        self.symbols.get(index).map(|symbol| (symbol.address, demangle(self.name(symbol))))
    }

    fn name(&self, symbol: &Symbol) -> &[u8] {
        let names = self.names.as_ref().map(Bytes::as_slice).unwrap_or_default();
        let from = usize::try_from(symbol.name)
            .ok()
            .and_then(|start| names.get(start..))
            .unwrap_or_default();
        let limited = from.get(..MAX_NAME).unwrap_or(from);
        limited.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

impl Symbol {
    /// A named place in the code, or `None`.
    fn new(entry: &Sym64<LittleEndian>) -> Option<Self> {
        let section = entry.st_shndx(LE);
        if entry.st_name(LE) == 0 || section == elf::SHN_UNDEF || section == elf::SHN_ABS {
            return None;
        }
        let kind = match entry.st_type() {
            elf::STT_FUNC | elf::STT_GNU_IFUNC => 4,
            elf::STT_NOTYPE => 0,
            _ => return None,
        };
        let size = entry.st_size(LE);
        let rank = kind | (u8::from(size != 0) << 1) | u8::from(entry.st_bind() != elf::STB_LOCAL);
        Some(Self { address: entry.st_value(LE), size, name: entry.st_name(LE), rank })
    }
}

/// Removes labels inside of functions: the function's name says more.
fn drop_inner_labels(symbols: &mut Vec<Symbol>) {
    let mut function_end = 0;
    symbols.retain(|symbol| {
        if symbol.size != 0 {
            function_end = symbol.address.saturating_add(symbol.size);
        }
        symbol.size != 0 || symbol.address >= function_end
    });
}

/// A name as in the source, without the hash that Rust adds; short and safe to print.
fn demangle(name: &[u8]) -> String {
    let Ok(name) = std::str::from_utf8(name) else { return text::printable(name) };
    let mut writer = text::Printable::default();
    // The writer fails when it is full, which is no error here.
    let _ = write!(writer, "{:#}", rustc_demangle::demangle(name));
    writer.finish()
}
