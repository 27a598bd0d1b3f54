//! Each kind of bad kernel gets its own error, which says what is wrong.

use nerite_loader::{Error, Image, Kernel, Limits};
use nerite_log_budget::Causes;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use nerite_loader::testing::{
    CODE, Elf, Note, R_64, R_GLOB_DAT, R_RELATIVE, Rela, Segment, interface_note, program_header,
};

fn kernel(file: Vec<u8>) -> Result<Kernel, Error> {
    Kernel::parse(file, &Limits::default())
}

fn error(elf: &Elf) -> String {
    kernel(elf.build()).unwrap_err().to_string()
}

/// The error for the usual kernel with some bytes overwritten.
fn damaged(at: usize, bytes: &[u8]) -> String {
    let mut file = Elf::hermit().build();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    kernel(file).unwrap_err().to_string()
}

#[test]
fn not_an_image() {
    let parse =
        |bytes: &[u8]| Image::parse(bytes.to_vec(), &Limits::default()).unwrap_err().to_string();
    assert_eq!(parse(b""), "the file is empty; was the build interrupted?");
    assert_eq!(
        parse(b"hello\n"),
        format!(
            "not an image: it starts with 68 65 6c 6c, neither an ELF file nor a gzip'd tar, nor a Linux or multiboot kernel"
        )
    );
    assert!(parse(b"#!/bin/sh\n").contains("a script"));
    assert!(parse(b"\x1f").contains("it starts with 1f,"));
    let small = Limits { max_file: 100, ..Limits::default() };
    let error = Image::parse(Elf::hermit().build(), &small).unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 100, .. }), "{error}");
}

#[test]
fn truncated() {
    let file = Elf::hermit().build();
    assert_eq!(
        kernel(file[..40].to_vec()).unwrap_err().to_string(),
        "truncated ELF file: the file header needs 64 bytes, the file has 40; copy or build it again"
    );
    assert!(
        kernel(file[..5].to_vec())
            .unwrap_err()
            .to_string()
            .contains("the file header needs 64 bytes")
    );
    assert!(
        kernel(file[..70].to_vec())
            .unwrap_err()
            .to_string()
            .contains("the program header table needs")
    );
    // Without its last byte, and so on, down to where the loaded parts end.
    let loaded =
        kernel(file.clone()).unwrap().segments().iter().map(|s| s.file_offset + s.file_size).max();
    let loaded = loaded.unwrap() as usize;
    for size in 0..loaded {
        assert!(kernel(file[..size].to_vec()).is_err(), "{size}");
    }
    // Symbols and section headers are not needed.
    assert!(kernel(file[..loaded].to_vec()).unwrap().symbols().is_empty());
}

#[test]
fn other_machines() {
    assert_eq!(damaged(18, &[183, 0]), format!("built for AARCH64, only x86-64 is supported"));
    assert_eq!(damaged(18, &[0xf3, 0]), format!("built for RISCV, only x86-64 is supported"));
    assert_eq!(
        damaged(18, &[0xee, 0xee]),
        format!("built for machine 61166, only x86-64 is supported")
    );
    let i386 = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0";
    assert_eq!(
        kernel(i386.to_vec()).unwrap_err().to_string(),
        format!("a 32-bit ELF file for 386, only 64-bit x86-64 is supported")
    );
    let s390 = b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x16";
    assert_eq!(
        kernel(s390.to_vec()).unwrap_err().to_string(),
        format!("a big-endian ELF file for S390, only x86-64 is supported")
    );
    assert_eq!(
        damaged(6, &[9]),
        "malformed ELF file: class 2, byte order 1 and version 9 are unknown"
    );
    assert!(damaged(16, &[1]).starts_with("an object file (ET_REL), not an executable"));
    assert!(damaged(16, &[4]).starts_with("a core dump (ET_CORE), not an executable"));
    assert!(damaged(16, &[0, 0xfe]).starts_with("an ELF file of type 0xfe00, not an executable"));
}

#[test]
fn dynamic_programs() {
    let elf = Elf { needed: vec![b"libc.so.6", b"libm.so.6"], ..Elf::hermit() };
    let text = "dynamically linked, it needs the shared library \"libc.so.6\"";
    assert_eq!(error(&elf), text);
    // The same for one that is no Hermit program at all.
    assert_eq!(error(&Elf { notes: Vec::new(), ..elf }), text);
    // This test is such a program.
    let own = Image::read(std::env::current_exe().unwrap(), &Limits::default()).unwrap_err();
    let own = Causes(&own).to_string();
    assert!(own.contains("dynamically linked, it needs the shared library"), "{own}");
}

#[test]
fn notes() {
    let elf = Elf::hermit();
    let none = "no Hermit entry version note";
    assert_eq!(error(&Elf { notes: Vec::new(), ..elf.clone() }), none);
    assert_eq!(error(&Elf { notes: vec![interface_note(2)], ..elf.clone() }), none);
    let later =
        Elf { notes: vec![interface_note(2)], more_notes: elf.notes.clone(), ..elf.clone() };
    assert!(error(&later).contains("a later one has it"), "{}", error(&later));
    let with = |note: Note| {
        let mut elf = elf.clone();
        elf.notes.insert(0, note);
        error(&elf)
    };
    let entry = |desc: &[u8]| Note { name: b"HERMIT\0", kind: 0x5a00, desc: desc.to_vec() };
    assert_eq!(
        with(entry(&[3])),
        "Hermit entry version 3 is not supported, only 4; build with a matching version of the hermit crate"
    );
    assert_eq!(with(entry(&[])), "malformed ELF file: the note HERMIT is too short or too long");
    assert!(
        with(interface_note(4))
            .starts_with("hypercall interface version 4 is not supported, only 1 to 3")
    );
    assert!(with(interface_note(0)).starts_with("hypercall interface version 0 is not supported"));
    let short = Note { name: b"UHYVEIF\0", kind: 0x5b00, desc: vec![0, 0, 2] };
    assert!(with(short).contains("UHYVEIF"));
    // A name longer than its segment.
    let long = Note { name: b"\xff\xff\xff\xff", kind: 0, desc: vec![] };
    let mut file = Elf { notes: vec![long], ..elf.clone() }.build();
    let at = file.windows(4).position(|bytes| bytes == b"\xff\xff\xff\xff").unwrap();
    file[at - 12..at - 8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(kernel(file).unwrap_err().to_string().starts_with("malformed ELF file: "));
}

#[test]
fn segments() {
    let second = program_header(Elf::segment_index(1));
    let size = |value: u64| value.to_le_bytes();
    assert_eq!(
        damaged(second + 32, &size(0x2346)),
        "segment 2: more bytes in the file than in memory"
    );
    assert_eq!(
        damaged(second + 40, &size(0xff)),
        "segment 2: more bytes in the file than in memory"
    );
    assert_eq!(
        damaged(second + 40, &size(u64::MAX)),
        "segment 2: the address range is beyond 64 bits"
    );
    assert_eq!(damaged(second + 8, &size(u64::MAX)), "segment 2: the file range is beyond 64 bits");
    assert_eq!(damaged(second + 48, &size(3)), "segment 2: the alignment is not a power of two");
    assert!(damaged(second + 8, &size(1 << 40)).starts_with("truncated ELF file: a segment needs"));
    let overlap = "segments 1 and 2 overlap or are not in ascending order";
    assert_eq!(damaged(second + 16, &size(CODE + 0x122)), overlap);
    assert_eq!(damaged(second + 16, &size(0x8000)), overlap);
    assert_eq!(
        damaged(second + 40, &size(8 << 30)),
        "the kernel needs 0x200011128 bytes of memory, the limit is 0x100000000"
    );
    // The first segment moved up; the rest is still above it.
    let text = damaged(program_header(0) + 16, &size(0x1000));
    assert_eq!(text, "relocatable kernel linked at 0x1000; link it at address 0");
    assert_eq!(damaged(56, &[200, 0]), "200 program headers, at most 128 are supported");
    assert_eq!(damaged(54, &[57, 0]), "malformed ELF file: Invalid ELF program header entry size");

    let mut file = Elf::hermit().build();
    for index in 0..3 {
        file[program_header(index)] = 0;
    }
    assert_eq!(kernel(file).unwrap_err().to_string(), "no loadable segment");
}

#[test]
fn entry_point() {
    for entry in [CODE + 0x123, CODE - 1, u64::MAX] {
        let text = format!("the entry point {entry:#x} is outside of all loadable segments");
        assert_eq!(error(&Elf { entry, ..Elf::hermit() }), text);
    }
    assert!(kernel(Elf { entry: CODE + 0x122, ..Elf::hermit() }.build()).is_ok());
}

#[test]
fn thread_local_storage() {
    let with = |tls| error(&Elf { tls: Some(tls), ..Elf::hermit() });
    assert_eq!(
        with((CODE, 9, 8, 8)),
        "thread-local storage: more bytes in the file than in memory"
    );
    assert_eq!(with((CODE, 8, 8, 24)), "thread-local storage: the alignment is not a power of two");
    assert_eq!(
        with((u64::MAX, 0, 8, 8)),
        "thread-local storage: the address range is beyond 64 bits"
    );
    let outside = "thread-local storage: the initial bytes are outside of all loadable segments";
    assert_eq!(with((CODE + 0x120, 4, 8, 8)), outside);
    assert!(
        kernel(Elf { tls: Some((CODE + 0x120, 3, 0x9000, 0)), ..Elf::hermit() }.build()).is_ok()
    );
}

#[test]
fn relocations() {
    let with = |place, kind, symbol| {
        let mut elf = Elf::hermit();
        elf.relas.push(Rela { place, kind, symbol, addend: 0 });
        error(&elf)
    };
    let data = CODE + 0x1128;
    assert_eq!(
        with(data, 37, 0),
        format!(
            "relocation type R_X86_64_IRELATIVE at {data:#x} is not supported; link as static-pie"
        )
    );
    assert!(with(data, 0xffff, 0).starts_with("relocation type 65535 at"));
    let end = data + 0x2345;
    let outside = "is outside of the kernel's memory, in its relocation table, or out of order";
    assert_eq!(with(end - 7, R_RELATIVE, 0), format!("relocation at {:#x} {outside}", end - 7));
    assert_eq!(with(u64::MAX, R_64, 1), format!("relocation at {:#x} {outside}", u64::MAX));
    assert!(with(data, R_64, u32::MAX).contains("names symbol 4294967295, which"));

    let mut elf = Elf::hermit();
    elf.dynamic_symbols[2].info = 0x12;
    assert_eq!(error(&elf), "undefined symbol \"nowhere\"; link the library that defines it");
    elf.dynamic_symbols[2].name = b"\x1b[2J\n";
    assert_eq!(error(&elf), "undefined symbol \"\\u{1b}[2J\\n\"; link the library that defines it");

    for (tag, value, text) in [
        (18, 24, "relocations in a DT_REL table are not supported"),
        (2, 24, "relocations in a DT_JMPREL table are not supported"),
        (9, 23, "DT_RELAENT is 23, not 24"),
        (8, 24 << 30, "the DT_RELA table of 25769803776 bytes is outside of the file"),
        (8, 25, "the DT_RELA table of 25 bytes is outside of the file or has a broken size"),
    ] {
        let mut elf = Elf::hermit();
        // The last entry of a kind counts, and those here come first.
        if tag == 8 {
            elf.relas.clear();
            elf.dynamic.push((7, 0));
        }
        elf.dynamic.push((tag, value));
        assert!(error(&elf).contains(text), "{}", error(&elf));
    }
}

#[test]
fn compact_relocations_must_ascend() {
    let with = |relr: &[u64]| kernel(Elf { relr: relr.to_vec(), ..Elf::hermit() }.build());
    let data = CODE + 0x1128;
    assert_eq!(with(&[data, 0b1011, data + 64 * 8]).unwrap().relocations().compact, 4);
    assert!(with(&[data, data]).is_err());
    assert!(with(&[data, 0b11, data + 8]).is_err());
    assert!(with(&[data, data - 8]).is_err());
    assert!(with(&[1 << 40]).is_err());
    assert!(with(&[u64::MAX - 1, u64::MAX, u64::MAX]).is_err());
    // Bitmaps without an address before them start at 0.
    assert_eq!(with(&[0b111]).unwrap().relocations().compact, 2);
}

#[test]
fn relocated_values() {
    let mut elf = Elf { relr: vec![CODE + 0x11a8, 0b101], ..Elf::hermit() };
    let data = &mut elf.segments[1].data;
    data[0x80..0x88].copy_from_slice(&0x111_u64.to_le_bytes());
    data[0x90..0x98].copy_from_slice(&0x222_u64.to_le_bytes());
    // Weak and undefined wins over what is in the file.
    data[32..40].copy_from_slice(&[0xff; 8]);
    let absolute = elf.dynamic_symbols.len() as u32;
    elf.dynamic_symbols.push(nerite_loader::testing::Symbol {
        name: b"abs",
        info: 0x10,
        section: 0xfff1,
        value: 7,
        size: 0,
    });
    let place = CODE + 0x1128 + 48;
    elf.relas.push(Rela { place, kind: R_64, symbol: absolute, addend: 1 });
    elf.relas.push(Rela { place: place + 8, kind: R_GLOB_DAT, symbol: 1, addend: 99 });
    elf.relas.push(Rela { place: u64::MAX, kind: 0, symbol: 9, addend: 9 });

    let memory =
        GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0x10_0000), 0x2_0000)]).unwrap();
    let kernel = kernel(elf.build()).unwrap();
    kernel.load(&memory, 0x10_0000).unwrap();
    let read = |address: u64| memory.read_obj::<u64>(GuestAddress(0x10_0000 + address)).unwrap();
    assert_eq!(read(CODE + 0x11a8), 0x10_0111);
    assert_eq!(read(CODE + 0x11b8), 0x10_0222);
    assert_eq!(read(CODE + 0x1128 + 32), 0);
    assert_eq!(read(place), 8);
    assert_eq!(read(place + 8), 0x10_0000 + CODE + 0x10);
    assert_eq!(
        kernel.relocations().to_string(),
        "11: 3 relative, 2 compact relative, 3 64-bit, 3 GLOB_DAT (2 against undefined weak symbols)"
    );
}

#[test]
fn where_it_is_loaded() {
    let memory =
        |start, size| GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(start), size)]).unwrap();
    let kernel_error = |file: Vec<u8>, memory: &GuestMemoryMmap<()>, start| {
        kernel(file).unwrap().load(memory, start).unwrap_err().to_string()
    };
    let ram = memory(0x10_0000, 0x10_0000);
    let pie = Elf::hermit().build();
    assert_eq!(
        kernel_error(pie.clone(), &ram, 0x10_0010),
        "the kernel must be loaded at 0x100000, not at 0x100010"
    );
    let text = kernel_error(pie.clone(), &ram, 0x1f_0000);
    assert_eq!(text, "the kernel needs guest memory from 0x1f0000 to 0x20346d");
    assert!(kernel_error(pie, &ram, !0xfff).contains("the kernel needs guest memory"));
    // Nothing was touched.
    let mut bytes = vec![0xff; 0x10_0000];
    ram.read_slice(&mut bytes, GuestAddress(0x10_0000)).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0));
    let fixed = Elf::fixed(0x80_0000).build();
    assert_eq!(
        kernel_error(fixed.clone(), &ram, 0x10_0000),
        "the kernel must be loaded at 0x800000, not at 0x100000"
    );
    assert!(kernel_error(fixed, &ram, 0x80_0000).contains("from 0x800000 to 0x81346d"));
}

#[test]
fn loading_into_used_memory() {
    let used = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x4_0000)]).unwrap();
    used.write_slice(&[0xaa; 0x4_0000], GuestAddress(0)).unwrap();
    let fresh = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x4_0000)]).unwrap();
    let kernel = kernel(Elf::hermit().build()).unwrap();
    kernel.clear(&used, 0x1_0000).unwrap();
    for memory in [&used, &fresh] {
        kernel.load(memory, 0x1_0000).unwrap();
    }
    let range = |memory: &GuestMemoryMmap<()>| {
        let mut bytes = vec![0; 0x4_0000];
        memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    };
    let (used, fresh) = (range(&used), range(&fresh));
    let (start, end) = (0x1_0000, 0x1_0000 + kernel.mem_size() as usize);
    assert!(used[start..end] == fresh[start..end]);
    assert!(used[..start].iter().chain(&used[end..]).all(|&byte| byte == 0xaa));
}

#[test]
fn empty_segments_do_not_count() {
    let mut elf = Elf::hermit();
    elf.segments.insert(1, Segment { address: 5, data: Vec::new(), memory_size: 0, flags: 4 });
    assert_eq!(kernel(elf.build()).unwrap().segments().len(), 3);
}
