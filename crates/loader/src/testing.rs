//! Writes small, well-formed Hermit ELF files for tests: to be loaded or to be damaged.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "only tests use it, and their files are small"
)]

mod bytes;

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
}
