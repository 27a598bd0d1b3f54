//! Whatever the bytes: no panic, no hang, no great allocation.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::exercise;
use nerite_loader::testing::{CODE, Elf, program_header};

/// Numbers at which arithmetic and comparisons go wrong.
fn number() -> impl Strategy<Value = u64> {
    let edges = [
        0,
        1,
        7,
        8,
        0xfff,
        0x1000,
        CODE,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        i64::MAX as u64,
        i64::MIN as u64,
        u64::MAX - 0xfff,
        u64::MAX - 7,
        u64::MAX,
    ];
    prop_oneof![prop::sample::select(edges.to_vec()), any::<u64>(), 0..0x1_0000_u64]
}

/// One thing done to a file.
#[derive(Debug, Clone)]
pub(crate) enum Damage {
    Flip(Index, u8),
    Cut(Index),
    /// Number, its size in bytes, and where to write it.
    Write(u64, usize, Place),
    /// Copies one part over another.
    Splice(Index, Index, u8),
}

/// Place of a number that is overwritten.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Header(usize),
    ProgramHeader(usize, usize),
    /// At a multiple of 4.
    Anywhere(Index),
}

pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    let place = prop_oneof![
        (16..64_usize).prop_map(Place::Header),
        (0..8_usize, 0..56_usize)
            .prop_map(|(index, field)| Place::ProgramHeader(index, field & !3)),
        any::<Index>().prop_map(Place::Anywhere),
    ];
    prop_oneof![
        1 => (any::<Index>(), 1..=255_u8).prop_map(|(at, mask)| Damage::Flip(at, mask)),
        1 => any::<Index>().prop_map(Damage::Cut),
        6 => (number(), prop::sample::select(vec![2_usize, 4, 8]), place).prop_map(|(n, size, at)| Damage::Write(n, size, at)),
        1 => (any::<Index>(), any::<Index>(), any::<u8>()).prop_map(|(from, to, size)| Damage::Splice(from, to, size)),
    ]
}

pub(crate) fn apply(file: &mut Vec<u8>, damage: &Damage) {
    if file.is_empty() {
        return;
    }
    match damage {
        Damage::Flip(at, mask) => {
            let at = at.index(file.len());
            file[at] ^= mask;
        }
        Damage::Cut(at) => file.truncate(at.index(file.len())),
        Damage::Write(value, size, place) => {
            let at = match place {
                Place::Header(at) => *at,
                Place::ProgramHeader(index, field) => program_header(*index) + field,
                Place::Anywhere(at) => at.index(file.len()) & !3,
            };
            if let Some(target) = file.get_mut(at..at + size) {
                target.copy_from_slice(&value.to_le_bytes()[..*size]);
            }
        }
        Damage::Splice(from, to, size) => {
            let (from, to) = (from.index(file.len()), to.index(file.len()));
            let size = usize::from(*size).min(file.len() - from.max(to));
            file.copy_within(from..from + size, to);
        }
    }
}

/// A well-formed kernel to start from.
pub(crate) fn kernel() -> impl Strategy<Value = Elf> {
    prop_oneof![
        Just(Elf::hermit()),
        Just(Elf::fixed(0x80_0000)),
        Just(Elf { relr: vec![CODE + 0x11a8, 0b101], ..Elf::hermit() }),
        Just(Elf { needed: vec![b"libc.so.6"], ..Elf::hermit() }),
    ]
}

/// A kernel whose structure is whole, but whose numbers are not.
pub(crate) fn odd_kernel() -> impl Strategy<Value = Elf> {
    let relr = prop::collection::vec(number(), 0..6);
    let relas = prop::collection::vec((number(), 0..40_u32, 0..5_u32), 0..6);
    let segments = prop::collection::vec((number(), number()), 0..4);
    let tls = prop::option::of((number(), number(), number(), number()));
    let dynamic = prop::collection::vec((0..40_u64, number()), 0..6);
    (relr, relas, segments, tls, dynamic, number()).prop_map(
        |(relr, relas, segments, tls, dynamic, number)| {
            let mut elf = Elf { relr, tls, dynamic, ..Elf::hermit() };
            elf.relas.extend(relas.into_iter().map(|(place, kind, symbol)| {
                nerite_loader::testing::Rela { place, kind, symbol, addend: number as i64 }
            }));
            elf.segments.extend(segments.into_iter().map(|(address, memory_size)| {
                nerite_loader::testing::Segment {
                    address,
                    data: vec![1; 16],
                    memory_size,
                    flags: 7,
                }
            }));
            for symbol in &mut elf.symbols {
                (symbol.value, symbol.size) = (number, number);
            }
            elf
        },
    )
}

/// A tar header block of which any field may be odd; the checksum is right.
fn tar_block() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just("hermit.toml".to_owned()),
        Just("././@LongLink".to_owned()),
        Just("../../x".to_owned()),
        "[ -~]{0,40}",
    ];
    let size = prop_oneof![
        (0..4096_u64).prop_map(|size| format!("{size:011o}\0").into_bytes()),
        number().prop_map(|size| [&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat()),
        prop::collection::vec(any::<u8>(), 12),
    ];
    let kind = prop::sample::select(b"\x000123456789gxLKSVMN".to_vec());
    let magic = prop::sample::select(vec![&b"ustar\x0000"[..], b"ustar  \0", b"\0\0\0\0\0\0\0\0"]);
    (name, size, kind, magic, prop::collection::vec(any::<u8>(), 0..155)).prop_map(
        |(name, size, kind, magic, rest)| {
            let mut block = vec![0; 512];
            block[..name.len()].copy_from_slice(name.as_bytes());
            block[100..107].copy_from_slice(b"0000644");
            block[124..136].copy_from_slice(&size);
            block[148..156].copy_from_slice(&[b' '; 8]);
            block[156] = kind;
            block[257..265].copy_from_slice(magic);
            block[345..345 + rest.len()].copy_from_slice(&rest);
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            block
        },
    )
}

/// Blocks of data as they follow tar headers: text, pax records, zeros, anything.
fn data_block() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        Just(b"30 size=18446744073709551615\n".to_vec()),
        Just(b"18 path=../../abc\n".to_vec()),
        Just(b"22 GNU.sparse.major=1\n".to_vec()),
        Just(b"version = '1'\nkernel = 'x'\n[input]\nkernel_args = []\napp_args = []\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..512),
        Just(Vec::new()),
    ];
    text.prop_map(|mut text| {
        text.resize(512, 0);
        text
    })
}

/// A tar archive of an image.
fn archive(config: &str, kernel: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in [("hermit.toml", config.as_bytes()), ("app", kernel)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, name, data).unwrap();
    }
    builder.into_inner().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_kernels(elf in kernel(), list in prop::collection::vec(damage(), 1..6)) {
        let mut file = elf.build();
        list.iter().for_each(|damage| apply(&mut file, damage));
        let _ = exercise::elf(file);
    }

    #[test]
    fn odd_kernels(elf in odd_kernel()) {
        let _ = exercise::elf(elf.build());
    }

    #[test]
    fn random_tars(blocks in prop::collection::vec(prop_oneof![tar_block(), data_block()], 0..12)) {
        let _ = exercise::image_tar(&blocks.concat());
    }
}

proptest! {
    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000), start in 0..3_usize) {
        let start: &[u8] = [&b""[..], b"\x7fELF\x02\x01\x01", b"\x1f\x8b\x08"][start];
        let bytes = [start, &bytes].concat();
        let _ = exercise::image(bytes.clone());
        let _ = exercise::image_tar(&bytes);
        let _ = exercise::hermit_toml(&bytes);
    }

    #[test]
    fn random_configurations(text in "(version = '1'\n|kernel = |\\[input\\]\n|kernel_args = |app_args|\\[|\\]|'|\"|[ -~]|\n){0,40}") {
        let _ = exercise::hermit_toml(text.as_bytes());
    }

    #[test]
    fn damaged_archives(list in prop::collection::vec(damage(), 1..6), packed in any::<bool>()) {
        let config = "version = '1'\nkernel = 'app'\n[input]\nkernel_args = []\napp_args = []\n";
        let mut file = archive(config, &Elf::hermit().build());
        if packed {
            file = exercise::gzip(&file);
        }
        list.iter().for_each(|damage| apply(&mut file, damage));
        let _ = if packed { exercise::image(file) } else { exercise::image_tar(&file) };
    }
}

/// Checks that the images which the tests here vary are well-formed; with `NERITE_SEEDS` set to a
/// folder, writes them there as seeds for the targets in `fuzz/`.
#[test]
fn seeds() {
    let config = "version = '1'\nkernel = 'app'\n[input]\nkernel_args = ['-ip']\napp_args = []\nenv_vars = ['A=1']\n\
                  [requirements]\nmemory = '32 MiB'\ncpus = 2\n";
    let compact = Elf { relr: vec![CODE + 0x11a8, 0b101], ..Elf::hermit() }.build();
    let kernels = [Elf::hermit().build(), Elf::fixed(0x80_0000).build(), compact];
    let mut seeds = vec![("hermit_toml", config.as_bytes().to_vec())];
    for kernel in kernels {
        let archive = archive(config, &kernel);
        exercise::elf(kernel.clone()).unwrap();
        exercise::image_tar(&archive).unwrap();
        seeds.extend([
            ("elf", kernel),
            ("image_tar", exercise::gzip(&archive)),
            ("image_tar", archive),
        ]);
    }
    exercise::hermit_toml(config.as_bytes()).unwrap();
    let Some(folder) = std::env::var_os("NERITE_SEEDS").map(std::path::PathBuf::from) else {
        return;
    };
    for (index, (target, seed)) in seeds.into_iter().enumerate() {
        std::fs::create_dir_all(folder.join(target)).unwrap();
        std::fs::write(folder.join(target).join(format!("seed-{index}")), seed).unwrap();
    }
}
