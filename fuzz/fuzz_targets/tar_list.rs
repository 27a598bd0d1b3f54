//! The lister of tar archives, on any bytes whose headers have the checksums that they should have.
#![no_main]

use nerite_loader::{Limits, testing};

const BLOCK: usize = 512;

/// Sets the checksum of a header (POSIX.1-2017, pax, "ustar Interchange Format"): without it no
/// input comes far.
fn set_checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut tar = bytes.to_vec();
    // Every block that is not empty; data blocks do not mind.
    for block in tar.chunks_exact_mut(BLOCK).filter(|block| block[0] != 0) {
        set_checksum(block);
    }
    let limits = Limits { max_entries: 50, max_names: 4096, ..Limits::default() };
    let size = tar.len() as u64;
    let archive = match testing::list(tar, &limits) {
        Ok(archive) => archive,
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains(|c: char| c.is_control()) && text.len() < 4000, "{text:?}");
            return;
        }
    };
    assert!(archive.entries().len() <= limits.max_entries);
    let mut names = 0;
    for entry in archive.entries() {
        let target = entry.target.as_deref().unwrap_or_default();
        assert!(entry.name.len() <= 4095 && target.len() <= 4095);
        names += entry.name.len() + target.len();
        assert!(entry.size() <= size && archive.data(entry).len() as u64 == entry.size());
        assert!(archive.get(&entry.name).is_some());
    }
    assert!(names <= limits.max_names);
});
