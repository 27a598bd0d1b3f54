//! A large kernel is read from its file where it is needed, and nothing but that differs from one
//! in memory.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use nerite_loader::testing::{CODE, Elf, R_64, R_RELATIVE, Rela};
use nerite_loader::{Error, Format, Image, Kernel, Limits, LoadedKernel};
use nerite_log_budget::Causes;
use proptest::prelude::*;
use tempfile::TempDir;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use crate::hostile::{apply, damage, kernel, odd_kernel};

/// Longer than what is read at once.
const LARGE: usize = 80 << 10;

/// An image file that can be changed.
struct OnDisk {
    path: PathBuf,
    _folder: TempDir,
}

impl OnDisk {
    fn new(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        fs::write(&path, bytes).unwrap();
        Self { path, _folder: folder }
    }

    fn read(&self) -> Result<Image, Error> {
        Image::read(&self.path, &Limits::default())
    }

    fn writer(&self) -> File {
        OpenOptions::new().write(true).open(&self.path).unwrap()
    }
}

/// Offset of the code of [`large`]: behind its tables.
const START: u64 = 0x8_0000;
const DATA: u64 = START + 0x1000;

/// A file whose tables do not fit into one piece, with code that is long.
fn large() -> Vec<u8> {
    let mut elf = Elf { entry: START, tls: None, relas: Vec::new(), ..Elf::hermit() };
    elf.segments[0].address = START;
    elf.segments[1].address = DATA;
    elf.segments[1].memory_size = 0x9_0000;
    elf.segments[1].data.resize(0x2_0000, 0xa5);
    elf.symbols.iter_mut().skip(1).for_each(|symbol| symbol.value += START - CODE);
    for index in 0..6000 {
        let (kind, symbol) = if index % 100 == 0 { (R_64, 1) } else { (R_RELATIVE, 0) };
        elf.relas.push(Rela { place: DATA + 8 * index, kind, symbol, addend: index as i64 });
    }
    elf.relr = vec![DATA + 0x4_0000, 0xffff_ffff_ffff_ffff, 0b1011];
    elf.build()
}

fn load(kernel: &Kernel) -> Result<(LoadedKernel, Vec<u8>), Error> {
    let start = kernel.fixed_start().unwrap_or(0x40_0000);
    let size = (kernel.mem_size() as usize).next_multiple_of(0x1000) + 0x1000;
    // A kernel that is linked where no memory can be.
    let Ok(ram) = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(start & !0xfff), size)])
    else {
        return Err(Error::Empty);
    };
    let loaded = kernel.load(&ram, start)?;
    let mut bytes = vec![0; size];
    ram.read_slice(&mut bytes, GuestAddress(start & !0xfff)).unwrap();
    Ok((loaded, bytes))
}

/// Checks that a file gives what its bytes give.
fn compare(bytes: Vec<u8>) {
    let limits = Limits { max_memory: 16 << 20, ..Limits::default() };
    let file = OnDisk::new(&bytes);
    let on_disk = Image::read(&file.path, &limits);
    match (on_disk, Image::parse(bytes, &limits)) {
        (Ok(on_disk), Ok(in_memory)) => {
            assert_eq!(on_disk.inspect().to_string(), in_memory.inspect().to_string());
            match (load(on_disk.kernel()), load(in_memory.kernel())) {
                (Ok(on_disk), Ok(in_memory)) => assert!(on_disk == in_memory),
                (on_disk, in_memory) => {
                    assert_eq!(
                        Causes(&on_disk.unwrap_err()).to_string(),
                        Causes(&in_memory.unwrap_err()).to_string()
                    );
                }
            }
        }
        (Err(Error::InFile { error: on_disk, .. }), Err(in_memory)) => {
            assert_eq!(Causes(&*on_disk).to_string(), Causes(&in_memory).to_string());
        }
        // Relocations are looked at when they are applied.
        (Ok(on_disk), Err(in_memory)) => match load(on_disk.kernel()) {
            Err(Error::Empty) => {}
            on_disk => assert_eq!(on_disk.unwrap_err().to_string(), in_memory.to_string()),
        },
        (on_disk, in_memory) => panic!("{on_disk:?} and {in_memory:?}"),
    }
}

#[test]
fn it_is_the_same_kernel() {
    let bytes = large();
    assert!(bytes.len() > 3 * LARGE);
    let image = OnDisk::new(&bytes).read().unwrap();
    assert_eq!((image.format(), image.file_size()), (Format::Elf, bytes.len() as u64));
    assert_eq!(
        (image.kernel().relocations().relative, image.kernel().relocations().compact),
        (5940, 66)
    );
    // The folder and the file are gone: what is open stays.
    assert!(
        image
            .kernel()
            .symbols()
            .lookup(START + 0x24)
            .unwrap()
            .to_string()
            .starts_with("hermit::main")
    );
    compare(bytes);
}

#[test]
fn a_file_that_becomes_shorter_is_told() {
    let file = OnDisk::new(&large());
    let image = file.read().unwrap();
    let last = image.kernel().segments().last().copied().unwrap();
    file.writer().set_len(last.file_offset + last.file_size - 1).unwrap();
    let error = load(image.kernel()).unwrap_err();
    assert!(matches!(error, Error::Shrunk), "{error}");
    // Only names are missing then.
    assert!(image.kernel().symbols().is_empty());
    file.writer().set_len(100).unwrap();
    assert!(matches!(load(image.kernel()), Err(Error::Shrunk)));
    let text = Causes(&file.read().unwrap_err()).to_string();
    assert!(text.contains("the program header table needs"), "{text}");
}

#[test]
fn relocations_are_checked_again_when_they_are_applied() {
    let bytes = large();
    let file = OnDisk::new(&bytes);
    let image = file.read().unwrap();
    // The table's entries are the only words of this value: kind R_X86_64_RELATIVE, no symbol, with
    // the place before.
    let place = (DATA + 8 * 5999).to_le_bytes();
    let at = bytes.windows(8).position(|word| word == place).unwrap() as u64;
    file.writer().write_all_at(&u64::MAX.to_le_bytes(), at).unwrap();
    assert!(matches!(load(image.kernel()), Err(Error::RelocationPlace { place: u64::MAX })));
    file.writer().write_all_at(&[place, 37_u64.to_le_bytes()].concat(), at).unwrap();
    assert!(matches!(load(image.kernel()), Err(Error::RelocationKind { .. })));
    file.writer().write_all_at(&8_u64.to_le_bytes(), at + 8).unwrap();
    load(image.kernel()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_files_are_refused_alike(elf in kernel(), list in prop::collection::vec(damage(), 1..4)) {
        let mut file = elf.build();
        list.iter().for_each(|damage| apply(&mut file, damage));
        file.resize(LARGE, 0);
        compare(file);
    }

    #[test]
    fn odd_files_are_refused_alike(elf in odd_kernel()) {
        let mut file = elf.build();
        file.resize(LARGE, 0);
        compare(file);
    }
}
