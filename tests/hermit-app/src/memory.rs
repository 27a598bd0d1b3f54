//! Memory: as much of it as asked for, all of it touched, none of it aliased.

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;

pub fn run(mib: usize) {
    let mut blocks: Vec<Vec<u8>> = (0..mib).map(|_| vec![0; MIB]).collect();
    for (index, block) in blocks.iter_mut().enumerate() {
        for (page, bytes) in block.chunks_exact_mut(PAGE).enumerate() {
            bytes[..8].copy_from_slice(&stamp(index, page));
        }
    }
    for (index, block) in blocks.iter().enumerate() {
        for (page, bytes) in block.chunks_exact(PAGE).enumerate() {
            assert_eq!(bytes[..8], stamp(index, page), "page {page} of MiB {index} has changed");
        }
    }
    println!("{mib} MiB hold what was written to them");
}

/// A value that no other page has.
fn stamp(block: usize, page: usize) -> [u8; 8] {
    ((block * MIB + page * PAGE) as u64 | 1).to_le_bytes()
}
