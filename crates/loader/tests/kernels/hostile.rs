//! Whatever the bytes: no panic, no hang, no great allocation.

use nerite_loader::Protocol;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::build::{bzimage, multiboot_elf, multiboot_flat, put, pvh};
use crate::exercise::exercise;

/// Numbers at which arithmetic and comparisons go wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    3,
    0xfff,
    0x1000,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_f000,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX - 0xfff,
    u64::MAX - 7,
    u64::MAX,
];

#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Write(u64, usize, Index),
    /// In the first bytes, where headers are.
    WriteHeader(u64, usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let number = || prop_oneof![select(EDGES.to_vec()), any::<u64>()];
    let size = || select(vec![1_usize, 2, 4, 8]);
    prop_oneof![
        1 => (any::<Index>(), 1..=255_u8).prop_map(|(at, mask)| Damage::Flip(at, mask)),
        1 => any::<Index>().prop_map(Damage::Cut),
        2 => (number(), size(), any::<Index>()).prop_map(|(n, size, at)| Damage::Write(n, size, at)),
        5 => (number(), size(), 0..0x280_usize).prop_map(|(n, size, at)| Damage::WriteHeader(n, size, at)),
    ]
}

fn apply(file: &mut Vec<u8>, damage: &Damage) {
    match damage {
        _ if file.is_empty() => {}
        Damage::Flip(at, mask) => {
            let at = at.index(file.len());
            file[at] ^= mask;
        }
        Damage::Cut(at) => file.truncate(at.index(file.len())),
        Damage::Write(value, size, at) => {
            let at = at.index(file.len());
            put(file, at, *value, *size);
        }
        Damage::WriteHeader(value, size, at) => put(file, *at, *value, *size),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damaged_kernels(which in 0..5_usize, forced in 0..5_usize, damages in prop::collection::vec(damage(), 1..6)) {
        let mut file = [bzimage(), pvh(true), pvh(false), multiboot_elf(), multiboot_flat()][which].clone();
        for damage in &damages {
            apply(&mut file, damage);
        }
        exercise(&file, None);
        exercise(&file, Protocol::ALL.get(forced).copied());
    }

    #[test]
    fn noise(mut file in prop::collection::vec(any::<u8>(), 0..2048), which in 0..4_usize) {
        for protocol in Protocol::ALL {
            exercise(&file, Some(protocol));
        }
        let magic: [(usize, &[u8]); 4] =
            [(0, b"\x7fELF\x01\x01\x01"), (0, b"\x7fELF\x02\x01\x01"), (0x202, b"HdrS"), (0, b"\x02\xb0\xad\x1b")];
        let (at, bytes) = magic[which];
        if let Some(place) = file.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        exercise(&file, None);
    }
}
