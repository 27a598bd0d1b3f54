use std::os::unix::fs::MetadataExt as _;

use proptest::prelude::*;

use super::*;

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
    let written = ram.write_sparse(&file).unwrap();
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
    ram.write_sparse(&file).unwrap();
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
    assert_eq!(clones[0].write_sparse(&again).unwrap(), 2 * PAGE);
}

#[test]
fn a_restored_region_is_aligned_as_a_new_one() {
    let file = tempfile::tempfile().unwrap();
    ram().write_sparse(&file).unwrap();
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
    assert!(ram().write_sparse(&read_only).is_err());
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
        prop_assert_eq!(ram.write_sparse(&file).unwrap(), pages.len() as u64 * PAGE);
        let restored = GuestRam::from_file(&regions, &Backing::default(), &file).unwrap();
        let (mut one, mut two) = (vec![0; 2 << 20], vec![1; 2 << 20]);
        ram.read(HIGH, &mut one).unwrap();
        restored.read(HIGH, &mut two).unwrap();
        prop_assert!(one == two);
    }
}
