//! Makes small kernels, well-formed, to be loaded or to be damaged.

/// Writes a number of `size` bytes at `offset`, if that is inside.
pub(crate) fn put(file: &mut [u8], offset: usize, value: u64, size: usize) {
    if let Some(place) = file.get_mut(offset..).and_then(|rest| rest.get_mut(..size)) {
        place.copy_from_slice(&value.to_le_bytes()[..size]);
    }
}

/// Offset of the code of [`bzimage`]: behind four setup sectors and the boot sector.
pub(crate) const CODE: usize = 5 * 512;

/// A bzImage of protocol 2.15 with a 64-bit entry.
pub(crate) fn bzimage() -> Vec<u8> {
    let mut file = vec![0; CODE + 3000];
    file[CODE..].fill(0xc3);
    file[0x1f1] = 4;
    put(&mut file, 0x1fe, 0xaa55, 2);
    put(&mut file, 0x200, 0x6aeb, 2);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    put(&mut file, 0x206, 0x20f, 2);
    put(&mut file, 0x20e, 0x100, 2);
    file[0x300..0x30d].copy_from_slice(b"6.1 (tester)\0");
    file[0x211] = 1;
    put(&mut file, 0x22c, 0x7fff_ffff, 4);
    put(&mut file, 0x230, 0x20_0000, 4);
    file[0x234] = 1;
    put(&mut file, 0x236, 1, 2);
    put(&mut file, 0x238, 2047, 4);
    put(&mut file, 0x258, 0x100_0000, 8);
    put(&mut file, 0x260, 0x1_0000, 4);
    file
}

/// The virtual address that ELF files made here are linked to; they are loaded at [`LOAD`].
pub(crate) const LINK: u64 = 0x8010_0000;
/// Load address.
pub(crate) const LOAD: u64 = 0x10_0000;

/// An ELF file of either class with one segment, and a note segment with `note`: name, type,
/// contents.
pub(crate) fn elf(wide: bool, note: Option<(&[u8], u32, &[u8])>, code: &[u8]) -> Vec<u8> {
    let (header, entry) = if wide { (64, 56) } else { (52, 32) };
    let mut file = vec![0; 0x200];
    file[..4].copy_from_slice(b"\x7fELF");
    file[4..7].copy_from_slice(&[if wide { 2 } else { 1 }, 1, 1]);
    put(&mut file, 16, 2, 2);
    put(&mut file, 18, if wide { 62 } else { 3 }, 2);
    put(&mut file, 20, 1, 4);
    let word = if wide { 8 } else { 4 };
    put(&mut file, 24, LINK + 4, word);
    put(&mut file, 24 + word, header as u64, word);
    let sizes = 24 + 3 * word + 4;
    for (index, value) in [header, entry, 2].into_iter().enumerate() {
        put(&mut file, sizes + 2 * index, value as u64, 2);
    }
    let notes = note.map_or_else(Vec::new, |(name, kind, contents)| {
        let mut bytes = Vec::new();
        for number in [name.len() as u32, contents.len() as u32, kind] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for part in [name, contents] {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    });
    let (note_at, code_at) = (file.len() as u64, file.len() as u64 + 0x100);
    let segments = [
        (1_u64, code_at, LINK, LOAD, code.len() as u64, code.len() as u64 + 0x1000),
        (4, note_at, 0, 0, notes.len() as u64, notes.len() as u64),
    ];
    for (index, (kind, offset, linked, load, in_file, in_memory)) in
        segments.into_iter().enumerate()
    {
        let at = header + index * entry;
        put(&mut file, at, kind, 4);
        let fields = [offset, linked, load, in_file, in_memory];
        let first = if wide { at + 8 } else { at + 4 };
        for (field, value) in fields.into_iter().enumerate() {
            put(&mut file, first + field * word, value, word);
        }
        let align = if wide { at + 48 } else { at + 28 };
        put(&mut file, align, 4, word);
    }
    file.extend_from_slice(&notes);
    file.resize(usize::try_from(code_at).unwrap(), 0);
    file.extend_from_slice(code);
    file
}

/// An ELF file with a PVH note.
pub(crate) fn pvh(wide: bool) -> Vec<u8> {
    let entry = if wide { LOAD + 8 } else { LOAD + 12 };
    let contents = &entry.to_le_bytes()[..if wide { 8 } else { 4 }];
    elf(wide, Some((b"Xen\0", 18, contents)), &[0x90; 64])
}

/// A multiboot header with these flags and whatever follows its checksum.
pub(crate) fn header(flags: u32, more: &[u32]) -> Vec<u8> {
    let magic = 0x1bad_b002_u32;
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(flags);
    [magic, flags, checksum].iter().chain(more).flat_map(|word| word.to_le_bytes()).collect()
}

/// A multiboot kernel in a 32-bit ELF file.
pub(crate) fn multiboot_elf() -> Vec<u8> {
    let mut code = header(3, &[]);
    code.resize(64, 0x90);
    elf(false, None, &code)
}

/// A multiboot kernel with load addresses: 16 bytes that are not loaded, then the header and code.
pub(crate) fn multiboot_flat() -> Vec<u8> {
    let load = 0x20_0000_u32;
    let addresses = [load, load, load + 0x40, load + 0x2000, load + 0x20];
    let mut file = vec![0x11; 16];
    file.extend(header(1 << 16, &addresses));
    file.resize(16 + 0x40, 0x90);
    file.extend([0x22; 8]);
    file
}
