//! Tests of kernels that are not Hermit's: made here byte by byte, loaded, compared, damaged.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "the files made here are small")]

mod build;
mod exercise;
mod hostile;

use build::{LOAD, bzimage, elf, multiboot_elf, multiboot_flat, put, pvh};
use exercise::ram;
use linux_loader::loader::{BzImage as ReferenceBzImage, KernelLoader};
use nerite_loader::{Error, GuestImage, Limits, Protocol, SegmentedKernel};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

fn parse(file: &[u8]) -> GuestImage {
    GuestImage::parse(file.to_vec(), None, &Limits::default()).unwrap()
}

fn error(file: &[u8], protocol: Option<Protocol>) -> Error {
    GuestImage::parse(file.to_vec(), protocol, &Limits::default()).unwrap_err()
}

fn segmented(image: &GuestImage) -> &SegmentedKernel {
    match image {
        GuestImage::Pvh(image) => image.kernel(),
        GuestImage::Multiboot(image) => image.kernel(),
        other => panic!("{other:?}"),
    }
}

fn bytes(ram: &GuestMemoryMmap, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

#[test]
fn each_kind_is_recognised() {
    for (file, expected) in [
        (bzimage(), Protocol::Linux),
        (pvh(true), Protocol::Pvh),
        (pvh(false), Protocol::Pvh),
        (multiboot_elf(), Protocol::Multiboot),
        (multiboot_flat(), Protocol::Multiboot),
        (elf(true, Some((b"HERMIT\0", 0x5a00, &[4])), &[0; 64]), Protocol::Hermit),
        (elf(true, None, &[0; 64]), Protocol::Hermit),
        (b"\x1f\x8b\x08".to_vec(), Protocol::Hermit),
        (b"hello".to_vec(), Protocol::Hermit),
        (Vec::new(), Protocol::Hermit),
    ] {
        assert_eq!(Protocol::of(&file), expected);
    }
}

#[test]
fn an_image_that_is_forced_to_be_something_says_what_it_lacks() {
    let lacks = |file: &[u8], protocol| error(file, Some(protocol)).to_string();
    assert!(lacks(&pvh(true), Protocol::Linux).contains("HdrS"));
    assert!(lacks(&bzimage(), Protocol::Pvh).contains("ELF header"));
    assert!(lacks(&elf(true, None, &[0; 64]), Protocol::Pvh).contains("note"));
    assert!(lacks(&bzimage(), Protocol::Multiboot).contains("first 8 KiB"));
    assert!(lacks(&pvh(true), Protocol::Hermit).contains("no Hermit entry version note"));
    assert!(lacks(b"", Protocol::Hermit).contains("empty"));
}

#[test]
fn a_bzimage_loads_as_linux_loader_loads_it() {
    let file = bzimage();
    let GuestImage::Linux(kernel) = parse(&file) else { panic!() };
    let ours = ram();
    assert_eq!(kernel.load(&ours).unwrap(), 0x100_0000);
    let theirs = ram();
    let mut cursor = std::io::Cursor::new(&file);
    let start = Some(GuestAddress(kernel.preferred_address()));
    let loaded = ReferenceBzImage::load(&theirs, start, &mut cursor, None).unwrap();
    assert_eq!(loaded.kernel_end, 0x100_0000 + kernel.code_size());
    assert_eq!(bytes(&ours, 0x100_0000, 0x2000), bytes(&theirs, 0x100_0000, 0x2000));
    let header = loaded.setup_header.unwrap();
    let (alignment, init_size, maximum) =
        (header.kernel_alignment, header.init_size, header.initrd_addr_max);
    assert_eq!(
        (alignment, init_size, maximum),
        (kernel.alignment(), kernel.init_size(), kernel.initrd_max())
    );
    assert_eq!(kernel.entry(0x100_0000), 0x100_0200);
    assert_eq!((kernel.version(), kernel.protocol_version()), (Some("6.1 (tester)"), 0x20f));
    // From setup_sects to where the jump leads: 0x202 + 0x6a.
    assert_eq!(kernel.setup_header(), &file[0x1f1..0x26c]);
}

#[test]
fn a_bzimage_with_impossible_numbers_is_refused() {
    let damaged = |offset: usize, value: u64, size: usize| {
        let mut file = bzimage();
        put(&mut file, offset, value, size);
        error(&file, None).to_string()
    };
    assert!(damaged(0x206, 0x209, 2).contains("2.09"));
    assert!(damaged(0x211, 0, 1).contains("zImage"));
    assert!(damaged(0x1f1, 40, 1).contains("before the kernel's code"));
    assert!(damaged(0x230, 3, 4).contains("power of two"));
    assert!(damaged(0x260, 8, 4).contains("less memory"));
    assert!(damaged(0x258, 0xffff_8000, 8).contains("1 MiB and 4 GiB"));
    assert!(damaged(0x258, u64::MAX, 8).contains("1 MiB and 4 GiB"));
    assert!(damaged(0x258, 0x10_1000, 8).contains("aligned"));
    let short = error(&bzimage()[..0x240], Some(Protocol::Linux)).to_string();
    assert!(short.contains("ends"), "{short}");
}

#[test]
fn elf_files_go_to_their_physical_addresses() {
    for (file, entry) in
        [(pvh(true), LOAD + 8), (pvh(false), LOAD + 12), (multiboot_elf(), LOAD + 4)]
    {
        let image = parse(&file);
        let kernel = segmented(&image);
        assert_eq!(
            (kernel.start(), kernel.end(), kernel.entry()),
            (LOAD, LOAD + 64 + 0x1000, entry)
        );
        let ram = ram();
        kernel.load(&ram).unwrap();
        assert_eq!(bytes(&ram, LOAD, 64), file[file.len() - 64..]);
        assert_eq!(bytes(&ram, LOAD + 64, 8), [0; 8]);
    }
}

#[test]
fn load_addresses_in_the_header_count() {
    let file = multiboot_flat();
    let image = parse(&file);
    let kernel = segmented(&image);
    assert_eq!((kernel.start(), kernel.end(), kernel.entry()), (0x20_0000, 0x20_2000, 0x20_0020));
    let ram = ram();
    kernel.load(&ram).unwrap();
    assert_eq!(bytes(&ram, 0x20_0000, 0x40), file[16..16 + 0x40]);
    assert_eq!(bytes(&ram, 0x20_0040, 8), [0; 8], "what follows the load end is not loaded");
}

#[test]
fn too_little_memory_is_not_touched() {
    let small = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10_0800)]).unwrap();
    let image = parse(&multiboot_elf());
    assert!(matches!(
        segmented(&image).load(&small),
        Err(Error::OutsideMemory { start: LOAD, .. })
    ));
    assert_eq!(bytes(&small, LOAD, 16), [0; 16]);
    let GuestImage::Linux(kernel) = parse(&bzimage()) else { panic!() };
    assert!(matches!(kernel.load(&small), Err(Error::OutsideMemory { start: 0x100_0000, .. })));
}

#[test]
fn unknown_mandatory_flags_are_refused() {
    let mut file = multiboot_elf();
    let at = file.len() - 64;
    file[at..at + 12].copy_from_slice(&build::header(1 << 4, &[]));
    assert!(error(&file, None).to_string().contains("asks for something unknown"));
}

#[test]
fn inspecting_says_what_matters() {
    let text = parse(&bzimage()).inspect().to_string();
    for part in ["Linux bzImage", "6.1 (tester)", "2.15", "0x1000200, 64-bit", "up to 2047 bytes"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(parse(&pvh(true)).inspect().to_string().contains("PVH entry point"));
    assert!(parse(&multiboot_elf()).inspect().to_string().contains("multiboot 1, ELF"));
    assert!(
        parse(&multiboot_flat()).inspect().to_string().contains("load addresses in its header")
    );
}
