//! The boot descriptor table (Intel SDM vol. 3, 3.4.5).

use crate::Segment;

/// The selector of the boot code segment.
pub const CODE_SELECTOR: u16 = 8;
/// The selector of the boot data segment.
pub const DATA_SELECTOR: u16 = 0x10;

/// The boot GDT: the null descriptor, 64-bit code and flat data, both of privilege level 0 and
/// already accessed.
pub const ENTRIES: [u64; 3] = [0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];

/// The GDT's size in bytes.
pub const SIZE: u16 = 24;

/// The bytes of the GDT as they lie in memory.
#[must_use]
pub fn bytes() -> Vec<u8> {
    ENTRIES.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

impl Segment {
    /// The segment register after loading `selector` whose descriptor is `descriptor`: a code or
    /// data segment.
    #[must_use]
    pub const fn from_descriptor(selector: u16, descriptor: u64) -> Self {
        let limit = (descriptor & 0xffff) as u32 | ((descriptor >> 32) & 0xf_0000) as u32;
        let g = descriptor & (1 << 55) != 0;
        Self {
            base: ((descriptor >> 16) & 0x00ff_ffff) | ((descriptor >> 32) & 0xff00_0000),
            limit: if g { limit << 12 | 0xfff } else { limit },
            selector,
            kind: ((descriptor >> 40) & 0xf) as u8,
            s: descriptor & (1 << 44) != 0,
            dpl: ((descriptor >> 45) & 3) as u8,
            present: descriptor & (1 << 47) != 0,
            avl: descriptor & (1 << 52) != 0,
            l: descriptor & (1 << 53) != 0,
            db: descriptor & (1 << 54) != 0,
            g,
            unusable: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_segments_decode() {
        let code = Segment::from_descriptor(CODE_SELECTOR, ENTRIES[1]);
        let flat = Segment {
            limit: 0xffff_ffff,
            selector: CODE_SELECTOR,
            kind: 11,
            present: true,
            s: true,
            l: true,
            g: true,
            ..Segment::default()
        };
        assert_eq!(code, flat);
        let data = Segment::from_descriptor(DATA_SELECTOR, ENTRIES[2]);
        assert_eq!(data, Segment { selector: DATA_SELECTOR, kind: 3, l: false, db: true, ..flat });
    }

    #[test]
    fn every_field_is_cut_from_its_place() {
        // Base 0x89abcdef, limit 0xf1234 bytes, type 5, DPL 3, not present, AVL.
        let segment = Segment::from_descriptor(0x33, 0x891f_75ab_cdef_1234);
        assert_eq!((segment.base, segment.limit), (0x89ab_cdef, 0xf1234));
        assert_eq!((segment.kind, segment.dpl, segment.selector), (5, 3, 0x33));
        assert!(segment.s && segment.avl);
        assert!(!segment.present && !segment.g && !segment.l && !segment.db);
    }

    #[test]
    fn bytes_are_little_endian() {
        let bytes = bytes();
        assert_eq!(bytes.len(), usize::from(SIZE));
        assert_eq!(bytes[8..16], [0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0]);
    }
}
