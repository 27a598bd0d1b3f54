//! Bytes of an ELF file.
//!
//! The file: header, program headers, notes, dynamic section, relocations, dynamic symbols (all of
//! that is the first loadable segment), then the segments' bytes, then symbol table, strings and
//! section headers (not loaded).

use super::{Elf, Note, Rela, Symbol, program_header};

impl Elf {
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
