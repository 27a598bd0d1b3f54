use std::sync::Arc;

use std::sync::Mutex;

use super::*;
use crate::{Backing, Region, WriteObserver};

const REGIONS: [Region; 2] =
    [Region { start: 0, size: 0x8_0000 }, Region { start: 0x1_0000_0000, size: 0x10_0000 }];

/// A file with the memory of a guest, and the bytes.
fn saved() -> (File, Vec<u8>) {
    let ram = GuestRam::new(&REGIONS, &Backing::default()).unwrap();
    for (address, byte) in [(0_u64, 1_u8), (0x7_ffff, 2), (0x1_0000_3000, 3), (0x1_000f_ffff, 4)] {
        ram.write(address, &[byte]).unwrap();
    }
    let file = tempfile::tempfile().unwrap();
    ram.write_sparse(&file, None).unwrap();
    let bytes = all(&ram);
    (file, bytes)
}

fn all(ram: &GuestRam) -> Vec<u8> {
    let mut bytes = Vec::new();
    for region in ram.regions() {
        let mut part = vec![0; usize::try_from(region.size).unwrap()];
        ram.read(region.start, &mut part).unwrap();
        bytes.append(&mut part);
    }
    bytes
}

fn pagemap() -> File {
    File::open("/proc/self/pagemap").unwrap()
}

#[test]
fn only_pages_that_were_written_are_copied_back() {
    let (file, bytes) = saved();
    let ram = GuestRam::from_file(&REGIONS, &Backing::default(), &file).unwrap();
    for address in [0, 0x7_f000, 0x1_0000_3000, 0x1_000f_f000] {
        ram.read_obj::<[u8; 4096]>(address).unwrap();
    }
    assert_eq!(ram.revert(&file, &pagemap(), u64::MAX).unwrap(), Reverted::Copied(0));
    // Two that adjoin, the ends of regions that adjoin in the file alone, and one by a device.
    for address in [0x2000, 0x3fff, 0x7_fff0, 0x1_0000_0000] {
        ram.write(address, &[0xee]).unwrap();
    }
    ram.slices(0x1_0005_0000, 1).unwrap().next().unwrap().copy_from(&[0xdd_u8][..]);
    assert_eq!(ram.revert(&file, &pagemap(), u64::MAX).unwrap(), Reverted::Copied(5));
    // They are this process's own from now on.
    assert_eq!(ram.revert(&file, &pagemap(), u64::MAX).unwrap(), Reverted::Copied(5));
    assert_eq!(all(&ram), bytes);
}

#[test]
fn many_pages_are_mapped_anew() {
    let (file, bytes) = saved();
    let ram = GuestRam::from_file(&REGIONS, &Backing::default(), &file).unwrap();
    let host: Vec<_> = ram.mappings().collect();
    for page in 0..100_u64 {
        ram.write(page * 4096, &[9]).unwrap();
    }
    assert_eq!(ram.revert(&file, &pagemap(), 99).unwrap(), Reverted::Mapped);
    assert_eq!(all(&ram), bytes);
    assert_eq!(ram.mappings().collect::<Vec<_>>(), host);
    assert_eq!(ram.revert(&file, &pagemap(), 99).unwrap(), Reverted::Copied(0));
}

#[test]
fn ram_of_another_origin_can_be_mapped_from_a_file() {
    let (file, bytes) = saved();
    let ram = GuestRam::new(&REGIONS, &Backing::default()).unwrap();
    ram.write(0x1_0000_0000, &[7; 0x4000]).unwrap();
    ram.map_again(&file).unwrap();
    assert_eq!(all(&ram), bytes);
    file.set_len(0x1000).unwrap();
    assert!(matches!(ram.map_again(&file), Err(Error::OutOfRange { .. })));
    file.set_len(0x18_0000).unwrap();
}

#[test]
fn a_file_that_was_mapped_again_is_saved_with_all_of_its_pages() {
    let (file, bytes) = saved();
    let map = crate::PageMap::open().unwrap();
    for ram in [
        GuestRam::new(&REGIONS, &Backing::default()).unwrap(),
        GuestRam::from_file(&REGIONS, &Backing::default(), &tempfile_of_zeros()).unwrap(),
    ] {
        ram.map_again(&file).unwrap();
        let again = tempfile::tempfile().unwrap();
        ram.write_sparse(&again, Some(&map)).unwrap();
        let mut written = vec![0; bytes.len()];
        again.read_exact_at(&mut written, 0).unwrap();
        assert!(written == bytes, "pages that were not touched are those of the file");
    }
}

/// The memory of a guest that has written nothing.
fn tempfile_of_zeros() -> File {
    let ram = GuestRam::new(&REGIONS, &Backing::default()).unwrap();
    let file = tempfile::tempfile().unwrap();
    ram.write_sparse(&file, None).unwrap();
    file
}

/// Takes note of writes.
#[derive(Default)]
struct Writes(Mutex<Vec<(u64, u64)>>);

impl WriteObserver for Writes {
    fn written(&self, addr: u64, len: u64) {
        self.0.lock().unwrap().push((addr, len));
    }
}

#[test]
fn what_is_put_back_is_reported_as_written() {
    let (file, _) = saved();
    let ram = GuestRam::from_file(&REGIONS, &Backing::default(), &file).unwrap();
    ram.write(0x5000, &[1]).unwrap();
    let writes = Arc::new(Writes::default());
    ram.observe(writes.clone());
    ram.revert(&file, &pagemap(), u64::MAX).unwrap();
    assert_eq!(std::mem::take(&mut *writes.0.lock().unwrap()), [(0x5000, 4096)]);
    ram.map_again(&file).unwrap();
    assert_eq!(*writes.0.lock().unwrap(), [(0, 0x8_0000), (0x1_0000_0000, 0x10_0000)]);
}
