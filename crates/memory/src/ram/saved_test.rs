use std::os::unix::fs::MetadataExt as _;

use proptest::prelude::*;

use super::*;
use crate::ram::Mapping;
use crate::test_file::in_memory;

const HIGH: u64 = 4 << 30;

fn regions() -> [Region; 2] {
    [Region { start: 0, size: 2 << 20 }, Region { start: HIGH + 0x1000, size: 64 << 20 }]
}

fn ram() -> GuestRam {
    GuestRam::new(&regions(), &Backing::default()).unwrap()
}

/// Addresses at the ends of pages, chunks and regions.
const PLACES: [u64; 7] = [
    0,
    0xfff,
    (256 << 10) - 1,
    256 << 10,
    (2 << 20) - 1,
    HIGH + 0x1000,
    HIGH + 0x1000 + (64 << 20) - 1,
];

#[test]
fn ram_is_the_same_in_the_file_and_from_it() {
    let ram = ram();
    for (index, place) in (1_u8..).zip(PLACES) {
        ram.write(place, &[index]).unwrap();
    }
    let file = tempfile::tempfile().unwrap();
    let written = ram.write_sparse(&file, None).unwrap();
    // Two of the places are in the first page.
    assert_eq!(written, 6 * PAGE);
    let length = file.metadata().unwrap();
    assert_eq!(length.len(), ram.size());
    assert!(length.blocks() * 512 < 1 << 20, "holes: {} blocks", length.blocks());
    let restored = GuestRam::from_file(&regions(), &Backing::default(), &file).unwrap();
    for region in regions() {
        let (mut one, mut two) = (vec![0; 2 << 20], vec![1; 2 << 20]);
        for offset in (0..region.size).step_by(2 << 20) {
            ram.read(region.start + offset, &mut one).unwrap();
            restored.read(region.start + offset, &mut two).unwrap();
            assert!(one == two, "at {offset:#x} of {region}");
        }
    }
}

#[test]
fn what_is_written_stays_out_of_the_file() {
    let ram = ram();
    ram.write(0x5000, b"saved").unwrap();
    let file = tempfile::tempfile().unwrap();
    ram.write_sparse(&file, None).unwrap();
    let clones =
        [(); 2].map(|()| GuestRam::from_file(&regions(), &Backing::default(), &file).unwrap());
    clones[0].write(0x5000, b"other").unwrap();
    clones[0].write(HIGH + 0x1000, b"new").unwrap();
    assert_eq!(clones[0].read_obj::<[u8; 5]>(0x5000), Ok(*b"other"));
    assert_eq!(clones[1].read_obj::<[u8; 5]>(0x5000), Ok(*b"saved"));
    assert_eq!(clones[1].read_obj::<[u8; 3]>(HIGH + 0x1000), Ok([0; 3]));
    let mut bytes = [0; 5];
    file.read_exact_at(&mut bytes, 0x5000).unwrap();
    assert_eq!(&bytes, b"saved");
    // A clone can be saved again.
    let again = tempfile::tempfile().unwrap();
    assert_eq!(clones[0].write_sparse(&again, None).unwrap(), 2 * PAGE);
}

#[test]
fn a_restored_region_is_aligned_as_a_new_one() {
    let file = tempfile::tempfile().unwrap();
    ram().write_sparse(&file, None).unwrap();
    let restored = GuestRam::from_file(&regions(), &Backing::default(), &file).unwrap();
    for mapping in restored.mappings() {
        assert_eq!(mapping.host.addr() as u64 % (2 << 20), mapping.guest % (2 << 20));
    }
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let file = tempfile::tempfile().unwrap();
    for size in [0, (66 << 20) - 1, (66 << 20) + 1] {
        file.set_len(size).unwrap();
        let error = GuestRam::from_file(&regions(), &Backing::default(), &file).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{size}: {error}");
    }
    file.set_len(66 << 20).unwrap();
    let huge = Backing { hugepages: true, ..Backing::default() };
    let even = [Region { start: 0, size: 66 << 20 }];
    assert!(matches!(GuestRam::from_file(&even, &huge, &file), Err(Error::Conflict { .. })));
    let [low, high] = regions();
    assert!(GuestRam::from_file(&[high, low], &Backing::default(), &file).is_err(), "not in order");
    assert!(GuestRam::from_file(&[low, low], &Backing::default(), &file).is_err(), "twice");
}

#[test]
fn a_file_that_cannot_be_written_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let read_only = File::open(file.path()).unwrap();
    assert!(ram().write_sparse(&read_only, None).is_err());
}

/// Number of mappings of this process between the host addresses of RAM.
fn mappings(ram: &GuestRam) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let starts =
        maps.lines().map(|line| usize::from_str_radix(line.split('-').next().unwrap(), 16));
    let starts: Vec<_> = starts.map(Result::unwrap).collect();
    let within = |mapping: Mapping| {
        let start = mapping.host.addr();
        starts
            .iter()
            .filter(|it| (start..start + usize::try_from(mapping.size).unwrap()).contains(it))
            .count()
    };
    ram.mappings().map(within).sum()
}

#[test]
fn mappings_grow_with_data_and_not_with_ram() {
    let counts = [64_u64 << 20, 4 << 30].map(|size| {
        let regions = [Region { start: HIGH, size }];
        let ram = GuestRam::new(&regions, &Backing::default()).unwrap();
        for page in [0, 3, 4, 900] {
            ram.write(HIGH + page * PAGE, b"x").unwrap();
        }
        let file = in_memory();
        ram.write_sparse(&file, Some(&PageMap::open().unwrap())).unwrap();
        mappings(&GuestRam::from_file(&regions, &Backing::default(), &file).unwrap())
    });
    // Three pieces and the holes after them.
    assert_eq!(counts, [6, 6]);
}

#[test]
fn holes_take_no_room_in_a_file_system_in_memory() {
    let ram = ram();
    ram.write(0x5000, b"saved").unwrap();
    let file = in_memory();
    ram.write_sparse(&file, None).unwrap();
    let blocks = file.metadata().unwrap().blocks();
    let restored = GuestRam::from_file(&regions(), &Backing::default(), &file).unwrap();
    for region in regions() {
        for page in (region.start..region.end()).step_by(16 << 12) {
            assert_eq!(restored.read_obj::<u8>(page + 0x1000), Ok(0));
            restored.write(page + 0x2000, &[1]).unwrap();
        }
    }
    assert_eq!(restored.read_obj::<[u8; 5]>(0x5000), Ok(*b"saved"));
    assert_eq!(file.metadata().unwrap().blocks(), blocks);
}

/// With the page tables the file is the same: of new RAM, and of RAM from a file, of which pages
/// were changed, added, emptied and left alone.
#[test]
fn untouched_pages_are_left_out_and_no_others() {
    let page_map = PageMap::open().unwrap();
    let ram = ram();
    for (index, place) in (1_u8..).zip(PLACES) {
        ram.write(place, &[index]).unwrap();
    }
    ram.write(0x9000, &[0; 4096]).unwrap();
    let first = in_memory();
    assert_eq!(ram.write_sparse(&first, Some(&page_map)).unwrap(), 6 * PAGE);
    let restored = GuestRam::from_file(&regions(), &Backing::default(), &first).unwrap();
    restored.write(0, &[0xff]).unwrap();
    restored.write(0x7000, &[0xff]).unwrap();
    restored.zero((256 << 10) - PAGE, PAGE).unwrap();
    let touched = |address: u64| {
        let offset = usize::try_from(address).unwrap();
        let host = restored.mappings().next().unwrap().host.addr() + offset;
        page_map.touched(host, 1).unwrap()[0]
    };
    assert_eq!([0, 0x7000, 0x10_0000].map(touched), [true, true, false]);
    // Looking at all of it touches all of it.
    let files = [Some(&page_map), None].map(|page_map| {
        let file = in_memory();
        assert_eq!(restored.write_sparse(&file, page_map).unwrap(), 6 * PAGE);
        let mut bytes = vec![0; 66 << 20];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    });
    assert!(files[0] == files[1]);
}

#[test]
fn only_pages_that_differ_are_written_over_earlier_memory() {
    let page_map = PageMap::open().unwrap();
    let ram = ram();
    for place in PLACES {
        ram.write(place, &[1]).unwrap();
    }
    let bytes = |file: &File| {
        let mut bytes = vec![0; 66 << 20];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let file = in_memory();
    ram.write_sparse(&file, Some(&page_map)).unwrap();
    for page_map in [None, Some(&page_map)] {
        assert_eq!(ram.write_changes(&file, page_map).unwrap(), 0);
        // Changed, new, emptied, and in the file alone.
        ram.write(0xffe, &[2]).unwrap();
        ram.write(0x1_0000, &[3]).unwrap();
        ram.zero(256 << 10, PAGE).unwrap();
        file.write_all_at(b"other", 17 << 20).unwrap();
        assert_eq!(ram.write_changes(&file, page_map).unwrap(), 4 * PAGE);
        let whole = in_memory();
        ram.write_sparse(&whole, page_map).unwrap();
        assert!(bytes(&file) == bytes(&whole));
        ram.write(0xffe, &[1]).unwrap();
        ram.zero(0x1_0000, PAGE).unwrap();
        ram.write(256 << 10, &[1]).unwrap();
        assert_eq!(ram.write_changes(&file, page_map).unwrap(), 3 * PAGE);
    }
    file.set_len(1 << 20).unwrap();
    assert!(ram.write_changes(&file, None).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_pages_come_back(pages in proptest::collection::btree_map(0_u64..512, 1_u8.., 0..40)) {
        let regions = [Region { start: HIGH, size: 2 << 20 }];
        let ram = GuestRam::new(&regions, &Backing::default()).unwrap();
        for (page, byte) in &pages {
            ram.write(HIGH + page * PAGE + u64::from(*byte), &[*byte]).unwrap();
        }
        let file = tempfile::tempfile().unwrap();
        prop_assert_eq!(ram.write_sparse(&file, None).unwrap(), pages.len() as u64 * PAGE);
        let restored = GuestRam::from_file(&regions, &Backing::default(), &file).unwrap();
        let (mut one, mut two) = (vec![0; 2 << 20], vec![1; 2 << 20]);
        ram.read(HIGH, &mut one).unwrap();
        restored.read(HIGH, &mut two).unwrap();
        prop_assert!(one == two);
    }
}
