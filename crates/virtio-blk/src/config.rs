//! Features and configuration (virtio 1.2, 5.2.3 and 5.2.4).

use nerite_virtio::feature as transport;

/// Feature bits of block devices (5.2.3).
pub mod feature {
    /// Segments have a largest size.
    pub const SIZE_MAX: u64 = 1 << 1;
    /// A request has a largest number of segments.
    pub const SEG_MAX: u64 = 1 << 2;
    /// The disk cannot be written.
    pub const RO: u64 = 1 << 5;
    /// The size of a block is in the configuration.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// Written data can be made durable.
    pub const FLUSH: u64 = 1 << 9;
    /// Sectors can be given back.
    pub const DISCARD: u64 = 1 << 13;
    /// Sectors can be zeroed without sending zeroes.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// The most pieces of memory of a request.
pub const MAX_SEGMENTS: u32 = 128;
/// The largest size of a piece in bytes.
const MAX_SEGMENT: u32 = 1 << 20;
/// The most bytes that a request can read or write.
pub const MAX_REQUEST: u64 = 128 << 20;
/// The most sectors that are given back at once: 2 GiB.
pub const MAX_DISCARD_SECTORS: u32 = 4 << 20;
/// The most sectors that are zeroed at once, 16 MiB: some file systems cannot do it without writing
/// zeroes.
pub const MAX_ZERO_SECTORS: u32 = 32 << 10;
/// The size of a logical block in bytes.
const BLOCK: u32 = 512;
/// Sectors that are given back are best whole pages of a file system.
const DISCARD_ALIGNMENT: u32 = 8;

/// Features that a disk offers.
pub(crate) fn features(is_read_only: bool) -> u64 {
    let ways = if is_read_only {
        feature::RO
    } else {
        feature::FLUSH | feature::DISCARD | feature::WRITE_ZEROES
    };
    ways | feature::SIZE_MAX
        | feature::SEG_MAX
        | feature::BLK_SIZE
        | transport::INDIRECT_DESC
        | transport::EVENT_IDX
}

/// `struct virtio_blk_config` (5.2.4).
pub(crate) fn bytes(sectors: u64) -> [u8; 60] {
    let mut bytes = [0; 60];
    let mut put = |at: usize, value: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(at).zip(value) {
            *to = *from;
        }
    };
    put(0, &sectors.to_le_bytes());
    put(8, &MAX_SEGMENT.to_le_bytes());
    put(12, &MAX_SEGMENTS.to_le_bytes());
    put(20, &BLOCK.to_le_bytes());
    put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
    put(40, &1_u32.to_le_bytes());
    put(44, &DISCARD_ALIGNMENT.to_le_bytes());
    put(48, &MAX_ZERO_SECTORS.to_le_bytes());
    put(52, &1_u32.to_le_bytes());
    // Zeroing may give sectors back.
    put(56, &[1]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_request_fits_what_is_allowed() {
        assert_eq!(u64::from(MAX_SEGMENTS) * u64::from(MAX_SEGMENT), MAX_REQUEST);
        let bytes = bytes(0x0102_0304_0506_0708);
        assert_eq!(bytes[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[12], 128);
        assert_eq!(bytes[20..24], [0, 2, 0, 0]);
    }

    #[test]
    fn what_is_read_only_cannot_be_changed() {
        let changing = feature::FLUSH | feature::DISCARD | feature::WRITE_ZEROES;
        assert_eq!(features(true) & (changing | feature::RO), feature::RO);
        assert_eq!(features(false) & (changing | feature::RO), changing);
    }
}
