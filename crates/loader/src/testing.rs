//! Writes small, well-formed Hermit ELF files for tests: to be loaded or to be damaged.
//!
//! The file: header, program headers, notes, dynamic section, relocations, dynamic symbols (all of
//! that is the first loadable segment), then the segments' bytes, then symbol table, strings and
//! section headers (not loaded).

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "only tests use it, and their files are small"
)]

use crate::{Archive, Error, Limits};

/// Lists a tar archive that is not compressed.
///
/// # Errors
/// If it is damaged or beyond the limits.
pub fn list(tar: Vec<u8>, limits: &Limits) -> Result<Archive, Error> {
    Archive::from_tar(tar, limits)
}

/// File offset of a program header.
pub fn program_header(index: usize) -> usize {
    64 + 56 * index
}

/// A program with a fixed address.
pub const ET_EXEC: u16 = 2;
/// A relocatable program.
pub const ET_DYN: u16 = 3;

/// Relocation: symbol and addend.
pub const R_64: u32 = 1;
/// Relocation: symbol.
pub const R_GLOB_DAT: u32 = 6;
/// Relocation: start address and addend.
pub const R_RELATIVE: u32 = 8;

/// Address of the first segment of [`Elf::hermit`], relative to the start.
pub const CODE: u64 = 0x1_0000;

/// A loadable segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Address as linked.
    pub address: u64,
    /// The bytes in the file.
    pub data: Vec<u8>,
    /// Size in memory in bytes.
    pub memory_size: u64,
    /// Permissions: 1 execute, 2 write, 4 read.
    pub flags: u32,
}

/// An ELF note.
#[derive(Debug, Clone)]
pub struct Note {
    /// Its name with its final zero byte.
    pub name: &'static [u8],
    /// Its type.
    pub kind: u32,
    /// Its contents.
    pub desc: Vec<u8>,
}

/// A relocation with addend.
#[derive(Debug, Clone, Copy)]
pub struct Rela {
    /// Address to relocate, as linked.
    pub place: u64,
    /// Its type.
    pub kind: u32,
    /// Index of a dynamic symbol.
    pub symbol: u32,
    /// Addend.
    pub addend: i64,
}

/// A symbol.
#[derive(Debug, Clone)]
pub struct Symbol {
    /// Its name.
    pub name: &'static [u8],
    /// Binding in the upper half, type in the lower.
    pub info: u8,
    /// The section it is in; 0 if undefined.
    pub section: u16,
    /// Its address as linked.
    pub value: u64,
    /// Its size in bytes, 0 if unknown.
    pub size: u64,
}

/// A Hermit ELF file to be.
#[derive(Debug, Clone)]
pub struct Elf {
    /// Type of the file: [`ET_DYN`] or [`ET_EXEC`].
    pub kind: u16,
    /// Address of the file header as linked; all other addresses are as they are.
    pub base: u64,
    /// Entry point as linked.
    pub entry: u64,
    /// The notes that count.
    pub notes: Vec<Note>,
    /// Notes of a second note segment.
    pub more_notes: Vec<Note>,
    /// The loadable segments after the first, which holds the headers.
    pub segments: Vec<Segment>,
    /// Address, size in the file, size in memory, alignment.
    pub tls: Option<(u64, u64, u64, u64)>,
    /// `DT_RELA` relocations.
    pub relas: Vec<Rela>,
    /// `DT_RELR` relocations, packed.
    pub relr: Vec<u64>,
    /// Symbols that relocations refer to.
    pub dynamic_symbols: Vec<Symbol>,
    /// Names of libraries.
    pub needed: Vec<&'static [u8]>,
    /// Further entries of the dynamic section.
    pub dynamic: Vec<(u64, u64)>,
    /// Symbols for people.
    pub symbols: Vec<Symbol>,
}

impl Default for Elf {
    fn default() -> Self {
        Self {
            kind: ET_DYN,
            base: 0,
            entry: CODE,
            notes: vec![Note { name: b"HERMIT\0", kind: 0x5a00, desc: vec![4] }],
            more_notes: Vec::new(),
            segments: Vec::new(),
            tls: None,
            relas: Vec::new(),
            relr: Vec::new(),
            dynamic_symbols: Vec::new(),
            needed: Vec::new(),
            dynamic: Vec::new(),
            symbols: Vec::new(),
        }
    }
}

/// The note that names a hypercall interface.
pub fn interface_note(version: u32) -> Note {
    Note { name: b"UHYVEIF\0", kind: 0x5b00, desc: version.to_be_bytes().to_vec() }
}

/// The note that names the kernel's version: 6, major, minor, patch.
pub fn abi_tag(words: [u32; 4]) -> Note {
    Note {
        name: b"GNU\0",
        kind: 1,
        desc: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
    }
}

impl Elf {
    /// A relocatable kernel with code, data with .bss, TLS, relocations of all kinds, notes and
    /// symbols.
    pub fn hermit() -> Self {
        let mut elf = Self {
            segments: vec![
                Segment { address: CODE, data: vec![0x90; 0x123], memory_size: 0x123, flags: 5 },
                Segment {
                    address: CODE + 0x1128,
                    data: (0..0x100).map(|i| if i < 0x80 { 0 } else { i as u8 }).collect(),
                    memory_size: 0x2345,
                    flags: 6,
                },
            ],
            tls: Some((CODE + 0x11a8, 0x20, 0x48, 16)),
            ..Self::default()
        };
        let data = CODE + 0x1128;
        elf.notes.push(interface_note(2));
        elf.notes.push(abi_tag([6, 0, 13, 2]));
        elf.dynamic_symbols = vec![
            Symbol { name: b"", info: 0, section: 0, value: 0, size: 0 },
            Symbol { name: b"here", info: 0x12, section: 1, value: CODE + 0x10, size: 0 },
            Symbol { name: b"nowhere", info: 0x22, section: 0, value: 0, size: 0 },
        ];
        elf.relas = vec![
            Rela { place: data, kind: R_RELATIVE, symbol: 0, addend: CODE as i64 + 4 },
            Rela { place: data + 8, kind: R_RELATIVE, symbol: 0, addend: -8 },
            Rela { place: data + 16, kind: R_64, symbol: 1, addend: 5 },
            Rela { place: data + 24, kind: R_GLOB_DAT, symbol: 1, addend: 0 },
            Rela { place: data + 32, kind: R_64, symbol: 2, addend: 5 },
            Rela { place: data + 40, kind: R_GLOB_DAT, symbol: 2, addend: 0 },
            // In .bss.
            Rela { place: data + 0x1001, kind: R_RELATIVE, symbol: 0, addend: 1 },
        ];
        elf.symbols = vec![
            Symbol { name: b"", info: 0, section: 0, value: 0, size: 0 },
            Symbol {
                name: b"_ZN6hermit4main17h0123456789abcdefE",
                info: 0x02,
                section: 1,
                value: CODE + 0x20,
                size: 0x20,
            },
            Symbol { name: b"_start", info: 0x10, section: 1, value: CODE, size: 0 },
        ];
        elf
    }

    /// The same at a fixed address.
    pub fn fixed(base: u64) -> Self {
        let mut elf = Self::hermit();
        elf.kind = ET_EXEC;
        elf.base = base;
        elf.entry += base;
        elf.segments.iter_mut().for_each(|segment| segment.address += base);
        elf.tls.as_mut().unwrap().0 += base;
        elf.symbols.iter_mut().skip(1).for_each(|symbol| symbol.value += base);
        elf.relas.clear();
        elf.dynamic_symbols.clear();
        elf
    }

    /// Index among the program headers of a segment of `segments`.
    pub fn segment_index(index: usize) -> usize {
        index + 1
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let mut file = File(vec![0; program_header(8 + self.segments.len())]);
        let notes = [&self.notes, &self.more_notes].map(|notes| file.add(&note_bytes(notes)));
        let (symbols, strings, dynamic) = self.add_dynamic(&mut file);
        let first_size = file.0.len() as u64;

        let mut rows = vec![row(1, 4, 0, self.base, first_size, first_size, 0x1000)];
        for segment in &self.segments {
            let (at, size) = file.add(&segment.data);
            rows.push(row(1, segment.flags, at, segment.address, size, segment.memory_size, 8));
        }
        for (at, size) in notes.into_iter().filter(|(_, size)| *size != 0) {
            rows.push(row(4, 4, at, self.base + at, size, size, 4));
        }
        if let Some((address, filesz, memsz, align)) = self.tls {
            rows.push(row(7, 4, 0, address, filesz, memsz, align));
        }
        let (at, size) = dynamic;
        if size != 0 {
            rows.push(row(2, 6, at, self.base + at, size, size, 8));
        }
        let sections = self.add_sections(&mut file, symbols, strings);
        let header = self.header(rows.len(), sections);
        file.0[..64].copy_from_slice(&header);
        file.0[64..program_header(rows.len())].copy_from_slice(&rows.concat());
        file.0
    }

    /// Relocations, dynamic symbols, their names, and the dynamic section, which is empty if all
    /// else is.
    fn add_dynamic(&self, file: &mut File) -> ((u64, u64), (u64, u64), (u64, u64)) {
        let rela: Vec<u8> = self.relas.iter().flat_map(Rela::bytes).collect();
        let relr: Vec<u8> = self.relr.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let (names, mut name_bytes) = symbol_bytes(&self.dynamic_symbols);
        let mut entries = self.dynamic.clone();
        for library in &self.needed {
            entries.push((1, name_bytes.len() as u64));
            name_bytes.extend_from_slice(library);
            name_bytes.push(0);
        }
        let (rela, relr) = (file.add(&rela), file.add(&relr));
        let (symbols, strings) = (file.add(&names), file.add(&name_bytes));
        let tables = [
            (rela, &[(7, rela.0 + self.base), (8, rela.1), (9, 24)][..]),
            (relr, &[(36, relr.0 + self.base), (35, relr.1), (37, 8)]),
            (symbols, &[(6, symbols.0 + self.base), (11, 24)]),
        ];
        for (_, list) in tables.iter().filter(|((_, size), _)| *size != 0) {
            entries.extend_from_slice(list);
        }
        if entries.is_empty() {
            return (symbols, strings, (0, 0));
        }
        entries.extend([(5, strings.0 + self.base), (10, strings.1), (0, 0)]);
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|(tag, value)| [*tag, *value])
            .flat_map(u64::to_le_bytes)
            .collect();
        (symbols, strings, file.add(&bytes))
    }

    /// Section headers, with the symbol table; gives their offset.
    fn add_sections(
        &self,
        file: &mut File,
        dynamic_symbols: (u64, u64),
        dynamic_strings: (u64, u64),
    ) -> u64 {
        let (symbols, names) = symbol_bytes(&self.symbols);
        let (symbols, names) = (file.add(&symbols), file.add(&names));
        let rows = [
            section(0, (0, 0), 0, 0),
            section(11, dynamic_symbols, 2, 24),
            section(3, dynamic_strings, 0, 0),
            section(2, symbols, 4, 24),
            section(3, names, 0, 0),
        ];
        file.add(&rows.concat()).0
    }

    fn header(&self, program_headers: usize, sections: u64) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\xff\0\0\0\0\0\0\0\0".to_vec();
        let half = |bytes: &mut Vec<u8>, value: u16| bytes.extend(value.to_le_bytes());
        half(&mut bytes, self.kind);
        half(&mut bytes, 62);
        bytes.extend(1_u32.to_le_bytes());
        for word in [self.entry, 64, sections] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([0; 4]);
        for value in [64, 56, program_headers as u16, 64, 5, 4] {
            half(&mut bytes, value);
        }
        bytes
    }
}

/// A file that grows.
struct File(Vec<u8>);

impl File {
    /// Adds bytes at the next multiple of 8; gives their offset and size.
    fn add(&mut self, bytes: &[u8]) -> (u64, u64) {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        let at = self.0.len() as u64;
        self.0.extend_from_slice(bytes);
        (at, bytes.len() as u64)
    }
}

impl Rela {
    fn bytes(&self) -> Vec<u8> {
        let info = u64::from(self.symbol) << 32 | u64::from(self.kind);
        [self.place, info, self.addend as u64].into_iter().flat_map(u64::to_le_bytes).collect()
    }
}

fn note_bytes(notes: &[Note]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for note in notes {
        for word in [note.name.len() as u32, note.desc.len() as u32, note.kind] {
            bytes.extend(word.to_le_bytes());
        }
        for part in [note.name, &note.desc] {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

/// A symbol table and its strings.
fn symbol_bytes(symbols: &[Symbol]) -> (Vec<u8>, Vec<u8>) {
    let (mut table, mut names) = (Vec::new(), vec![0]);
    for symbol in symbols {
        let name = if symbol.name.is_empty() { 0 } else { names.len() as u32 };
        names.extend_from_slice(symbol.name);
        names.push(0);
        table.extend(name.to_le_bytes());
        table.extend([symbol.info, 0]);
        table.extend(symbol.section.to_le_bytes());
        table.extend(symbol.value.to_le_bytes());
        table.extend(symbol.size.to_le_bytes());
    }
    (table, names)
}

/// A program header.
fn row(
    kind: u32,
    flags: u32,
    at: u64,
    address: u64,
    size: u64,
    memory: u64,
    align: u64,
) -> Vec<u8> {
    let mut bytes = [kind, flags].map(u32::to_le_bytes).concat();
    bytes
        .extend([at, address, address, size, memory, align].into_iter().flat_map(u64::to_le_bytes));
    bytes
}

/// A section header.
fn section(kind: u32, (at, size): (u64, u64), link: u32, entry_size: u64) -> Vec<u8> {
    let mut bytes = [0, kind].map(u32::to_le_bytes).concat();
    bytes.extend([0, 0, at, size].into_iter().flat_map(u64::to_le_bytes));
    bytes.extend([link, 0].into_iter().flat_map(u32::to_le_bytes));
    bytes.extend([8, entry_size].into_iter().flat_map(u64::to_le_bytes));
    bytes
}
