//! Hermit images made by hand: small enough to break in every way one likes.

#![allow(clippy::cast_possible_truncation, reason = "the numbers are made here, and small")]

use std::io::Write as _;

/// Offset of the code, in the file and in memory.
const CODE: u64 = 0x400;

/// A Hermit ELF file to be.
#[derive(Clone)]
pub struct Elf {
    pub class: u8,
    pub machine: u16,
    pub file_type: u16,
    pub entry: u64,
    pub entry_version: Option<u8>,
    pub interface: Option<u32>,
    /// Address, bytes in memory, offset and bytes in the file of each PT_LOAD.
    pub loads: Vec<(u64, u64, u64, u64)>,
    /// A shared library that it needs.
    pub needed: bool,
    pub code: Vec<u8>,
}

impl Elf {
    /// A relocatable image with hypercall interface v2 that runs this code.
    pub fn new(code: &[u8]) -> Self {
        let size = CODE + code.len() as u64;
        Self {
            class: 2,
            machine: 62,
            file_type: 3,
            entry: CODE,
            entry_version: Some(4),
            interface: Some(2),
            loads: vec![(0, 0x4000, 0, size)],
            needed: false,
            code: code.to_vec(),
        }
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let notes = self.notes();
        let notes_at = 0x200_u64;
        let dynamic_at = 0x300_u64;
        let mut segments: Vec<[u64; 7]> = Vec::new(); // type, flags, offset, address, size in file, in memory, align
        segments.push([4, 4, notes_at, notes_at, notes.len() as u64, notes.len() as u64, 4]);
        for &(address, memory_size, offset, size) in &self.loads {
            segments.push([1, 7, offset, address, size, memory_size, 0x1000]);
        }
        if self.needed {
            segments.push([2, 6, dynamic_at, dynamic_at, 0x50, 0x50, 8]);
        }

        let mut file = vec![0x7f, b'E', b'L', b'F', self.class, 1, 1, 0xff];
        file.resize(16, 0);
        file.extend(self.file_type.to_le_bytes());
        file.extend(self.machine.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend(self.entry.to_le_bytes());
        file.extend(64_u64.to_le_bytes()); // program headers
        file.extend(0_u64.to_le_bytes()); // section headers
        file.extend(0_u32.to_le_bytes());
        for half in [64, 56, segments.len() as u16, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        for [kind, flags, offset, address, size, memory_size, align] in segments {
            file.extend((kind as u32).to_le_bytes());
            file.extend((flags as u32).to_le_bytes());
            for word in [offset, address, address, size, memory_size, align] {
                file.extend(word.to_le_bytes());
            }
        }
        assert!(file.len() as u64 <= notes_at);
        file.resize(notes_at as usize, 0);
        file.extend(notes);
        file.resize(dynamic_at as usize, 0);
        // DT_NEEDED names the string at 1; DT_STRTAB and DT_STRSZ say where the strings are.
        for word in [1, 1, 5, dynamic_at + 0x50, 10, 16, 0, 0, 0, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(b"\0libc.so.6\0");
        file.resize(CODE as usize, 0);
        file.extend(&self.code);
        file
    }

    fn notes(&self) -> Vec<u8> {
        let mut notes = Vec::new();
        let mut note = |name: &[u8], kind: u32, content: &[u8]| {
            notes.extend((name.len() as u32).to_le_bytes());
            notes.extend((content.len() as u32).to_le_bytes());
            notes.extend(kind.to_le_bytes());
            for part in [name, content] {
                notes.extend(part);
                notes.resize(notes.len().next_multiple_of(4), 0);
            }
        };
        if let Some(version) = self.entry_version {
            note(b"HERMIT\0", 0x5a00, &[version]);
        }
        if let Some(version) = self.interface {
            note(b"UHYVEIF\0", 0x5b00, &version.to_be_bytes());
        }
        notes
    }
}

/// An image that runs this code.
pub fn elf(code: &[u8]) -> Vec<u8> {
    Elf::new(code).build()
}

/// Code that ends the guest with a number (hypercall interface v2: Exit is port 0x1010, the number
/// is in EDI).
pub fn exit(code: i32) -> Vec<u8> {
    [&[0xbf][..], &code.to_le_bytes(), &[0x66, 0xba, 0x10, 0x10, 0xef, 0xf4]].concat()
}

/// Code that prints a text byte by byte (SerialWriteByte is port 0x1020, the byte is in EDI).
pub fn print(text: &str) -> Vec<u8> {
    text.bytes().flat_map(|byte| [0xbf, byte, 0, 0, 0, 0x66, 0xba, 0x20, 0x10, 0xef]).collect()
}

/// Code that only vCPU 0 leaves: all vCPUs start at the image's entry, and two that print at once
/// mix their bytes. `test esi, esi; jz` over `jmp $`.
pub const ON_VCPU_0: [u8; 6] = [0x85, 0xf6, 0x74, 0x02, 0xeb, 0xfe];
/// Code that loops without end.
pub const SPIN: [u8; 2] = [0xeb, 0xfe];
/// Code that halts with interrupts off and never wakes.
pub const HALT: [u8; 3] = [0xf4, 0xeb, 0xfd];
/// An undefined instruction; without an IDT that is a triple fault.
pub const CRASH: [u8; 2] = [0x0f, 0x0b];

/// Code that uses SSE (and enables it before).
#[rustfmt::skip]
pub const SSE: [u8; 13] = [
    0x0f, 0x20, 0xe0, //       mov rax, cr4
    0x66, 0x0d, 0x00, 0x06, // or ax, 0x600
    0x0f, 0x22, 0xe0, //       mov cr4, rax
    0x0f, 0x57, 0xc0, //       xorps xmm0, xmm0
];

/// A `hermit.toml` for a kernel called `kernel`, with no arguments.
pub const HERMIT_TOML: &str = "version = \"1\"\nkernel = \"kernel\"\n[input]\nkernel_args = []\napp_args = []\n[requirements]\n";

/// A header block of a tar archive with this kind and name, and its data.
pub fn tar_entry(archive: &mut Vec<u8>, kind: u8, name: &[u8], contents: &[u8]) {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..124].copy_from_slice(b"0000000\x000000000\0");
    write!(&mut header[124..136], "{:011o}", contents.len()).unwrap();
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    write!(&mut header[148..155], "{sum:06o}\0").unwrap();
    archive.extend(header);
    archive.extend(contents);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

/// A tar archive of these files, not compressed.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, contents) in files {
        tar_entry(&mut archive, b'0', name.as_bytes(), contents);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// `bytes` as a gzip file.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
