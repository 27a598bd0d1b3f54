//! The memory map, as the BIOS call E820 would tell it (ACPI 6.5, 15).

use super::{BASE_MEMORY_END, BIOS, EBDA, ECAM, ECAM_SIZE, HIGH_MEMORY};

/// Use of a range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// RAM for the kernel to use.
    Ram,
    /// Taken.
    Reserved,
}

impl Kind {
    /// The number that all boot protocols use for it.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Ram => 1,
            Self::Reserved => 2,
        }
    }
}

/// A range of guest-physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The first address.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
    /// Use of the range.
    pub kind: Kind,
}

/// The map for a machine with `low` bytes of RAM from address 0, more than 1 MiB, and `high` bytes
/// from 4 GiB.
#[must_use]
pub fn entries(low: u64, high: u64) -> Vec<Entry> {
    let entry = |start: u64, end: u64, kind| Entry { start, size: end.saturating_sub(start), kind };
    let mut entries = vec![
        entry(0, EBDA, Kind::Ram),
        entry(EBDA, BASE_MEMORY_END, Kind::Reserved),
        entry(BIOS, HIGH_MEMORY, Kind::Reserved),
        entry(HIGH_MEMORY, low, Kind::Ram),
        // Linux takes it for configuration space only if it is.
        Entry { start: ECAM.into(), size: ECAM_SIZE.into(), kind: Kind::Reserved },
    ];
    if high > 0 {
        entries.push(Entry { start: 4 << 30, size: high, kind: Kind::Ram });
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_ascends_and_keeps_what_firmware_left() {
        let map = entries(3 << 30, 2 << 30);
        for pair in map.windows(2) {
            assert!(pair[0].start + pair[0].size <= pair[1].start, "{pair:x?}");
        }
        let ram: u64 =
            map.iter().filter(|entry| entry.kind == Kind::Ram).map(|entry| entry.size).sum();
        assert_eq!(ram, (5 << 30) - (HIGH_MEMORY - EBDA));
        for address in [EBDA, BIOS, 0xf_ffff, u64::from(ECAM)] {
            let at =
                map.iter().find(|entry| (entry.start..entry.start + entry.size).contains(&address));
            assert_eq!(at.unwrap().kind, Kind::Reserved);
        }
        assert_eq!(entries(16 << 20, 0).len(), 5);
    }
}
