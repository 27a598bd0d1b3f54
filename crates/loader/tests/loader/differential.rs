//! Well-formed kernels load exactly as `hermit-entry` loads them.

use std::mem::MaybeUninit;

use hermit_entry::elf::KernelObject;
use nerite_loader::{Interface, Kernel, KernelVersion, Limits};
use proptest::prelude::*;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use nerite_loader::testing::{
    CODE, Elf, Note, R_64, R_GLOB_DAT, R_RELATIVE, Rela, Segment, abi_tag, interface_note,
};

/// Loads a file both ways and compares all there is to compare.
fn compare(file: &[u8], start: u64) {
    let theirs = KernelObject::parse(file).unwrap();
    let mut memory = vec![MaybeUninit::new(0); theirs.mem_size()];
    let loaded = theirs.load_kernel(&mut memory, start);

    let ours = Kernel::parse(file.to_vec(), &Limits::default()).unwrap();
    let version = theirs.hermit_version().map(|v| KernelVersion::new(v.major, v.minor, v.patch));
    assert_eq!(ours.version(), version);
    assert_eq!(ours.interface_version(), theirs.uhyve_interface_version().map(|v| v.0));
    assert_eq!(ours.fixed_start(), theirs.start_addr());
    assert_eq!(ours.mem_size(), memory.len() as u64);

    let size = memory.len().next_multiple_of(0x1000);
    let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(start), size)]).unwrap();
    let mine = ours.load(&ram, start).unwrap();
    assert_eq!(mine.entry, loaded.entry_point);
    let range = loaded.load_info.kernel_image_addr_range;
    assert_eq!((mine.start, mine.end), (range.start, range.end));
    let tls = mine.tls.map(|tls| (tls.start, tls.filesz, tls.memsz, tls.align));
    assert_eq!(
        tls,
        loaded.load_info.tls_info.map(|tls| (tls.start, tls.filesz, tls.memsz, tls.align))
    );

    let mut bytes = vec![0; memory.len()];
    ram.read_slice(&mut bytes, GuestAddress(start)).unwrap();
    // SAFETY: each byte was initialised above.
    let memory: Vec<u8> = memory.into_iter().map(|byte| unsafe { byte.assume_init() }).collect();
    assert!(
        bytes == memory,
        "first difference at {:?}",
        bytes.iter().zip(&memory).position(|(a, b)| a != b)
    );
}

#[test]
fn relocatable() {
    compare(&Elf::hermit().build(), 0x4_0000);
    compare(&Elf::hermit().build(), 0x1_2345_6000);
}

#[test]
fn fixed() {
    compare(&Elf::fixed(0x80_0000).build(), 0x80_0000);
}

#[test]
fn without_tls_or_relocations() {
    let elf = Elf { segments: Elf::hermit().segments, ..Elf::default() };
    compare(&elf.build(), 0x4_0000);
}

#[test]
fn first_notes_win_and_foreign_ones_do_not_count() {
    let mut elf = Elf::hermit();
    elf.notes = vec![
        abi_tag([0, 3, 2, 0]),
        Note { name: b"Linux\0", kind: 0x100, desc: vec![1; 7] },
        Note { name: b"HERMIT\0", kind: 0x5a00, desc: vec![4, 0, 0, 0] },
        Note { name: b"HERMIT\0", kind: 0x5a00, desc: vec![9] },
        abi_tag([6, 1, 2, 3]),
        abi_tag([6, 4, 5, 6]),
        interface_note(3),
        interface_note(1),
    ];
    compare(&elf.build(), 0x4_0000);
    let kernel = Kernel::parse(elf.build(), &Limits::default()).unwrap();
    assert_eq!(kernel.version(), Some(KernelVersion::new(1, 2, 3)));
    assert_eq!((kernel.interface(), kernel.interface_version()), (Interface::V2, Some(3)));
}

/// Segments with room between them, bytes, and a part that is zero.
fn segments() -> impl Strategy<Value = Vec<Segment>> {
    let one = (0..0x3000_u64, prop::collection::vec(any::<u8>(), 0..200), 0..0x2000_u64, 0..8_u32);
    prop::collection::vec(one, 1..6).prop_map(|list| {
        let mut address = CODE;
        let mut segments = Vec::new();
        for (gap, data, zeros, flags) in list {
            address += gap;
            let memory_size = data.len() as u64 + zeros + 1;
            segments.push(Segment { address, data, memory_size, flags });
            address += memory_size;
        }
        segments
    })
}

/// A relocatable kernel with random contents, all of it well-formed.
fn kernel() -> impl Strategy<Value = Elf> {
    let relocation = (any::<prop::sample::Index>(), 0..3_u32, any::<i32>());
    let notes = (prop::option::of(1..4_u32), prop::option::of(any::<[u32; 3]>()));
    let tls = prop::option::of((0..100_u64, 0..1000_u64, 0..7_u32));
    (segments(), prop::collection::vec(relocation, 0..40), notes, tls).prop_map(
        |(segments, relocations, (interface, version), tls)| {
            let mut elf =
                Elf { segments, dynamic_symbols: Elf::hermit().dynamic_symbols, ..Elf::default() };
            elf.notes.extend(version.map(|[a, b, c]| abi_tag([6, a, b, c])));
            elf.notes.extend(interface.map(interface_note));
            let first = &elf.segments[0];
            elf.entry = first.address + first.memory_size - 1;
            elf.tls = tls.map(|(filesz, more, align)| {
                let filesz = filesz.min(first.data.len() as u64);
                (first.address, filesz, filesz + more, 1 << align)
            });
            let end = elf.segments.last().map(|last| last.address + last.memory_size).unwrap();
            for (place, kind, addend) in relocations {
                let place = CODE + place.index((end - CODE - 8).max(1) as usize) as u64;
                let (kind, symbol, addend) = match kind {
                    0 => (R_RELATIVE, 0, i64::from(addend)),
                    1 => (R_64, 1, i64::from(addend)),
                    _ => (R_GLOB_DAT, 1, 0),
                };
                if place + 8 <= end {
                    elf.relas.push(Rela { place, kind, symbol, addend });
                }
            }
            elf
        },
    )
}

proptest! {
    #[test]
    fn random_kernels(elf in kernel(), page in 0..0x10_0000_u64) {
        compare(&elf.build(), page << 12);
    }
}
