//! Statistics of a guest's memory (virtio 1.2, 5.5.6.4).

/// Number of bytes of an entry: a tag of 16 bits and a value of 64.
pub(crate) const ENTRY: usize = 10;
/// The most entries that are read: more than there are tags.
pub(crate) const ENTRIES: usize = 16;

/// Statistics of a guest's memory, as its driver reports them. All but numbers of events are in
/// bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuestStatistics {
    /// Memory that was swapped in.
    pub swapped_in: Option<u64>,
    /// Memory that was swapped out.
    pub swapped_out: Option<u64>,
    /// Number of major page faults.
    pub major_faults: Option<u64>,
    /// Number of minor page faults.
    pub minor_faults: Option<u64>,
    /// Memory that is not used for anything.
    pub free: Option<u64>,
    /// All memory.
    pub total: Option<u64>,
    /// Memory that programs can have without swapping.
    pub available: Option<u64>,
    /// Memory that holds contents of disks, and can be had.
    pub caches: Option<u64>,
    /// Number of huge pages that were allocated.
    pub huge_pages: Option<u64>,
    /// Number of huge pages that could not be allocated.
    pub huge_page_failures: Option<u64>,
}

impl GuestStatistics {
    /// Reads entries. Tags that are not known are ignored, and of several with one tag the last one
    /// counts.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut statistics = Self::default();
        for entry in bytes.as_chunks::<ENTRY>().0 {
            let [tag0, tag1, value @ ..] = *entry;
            let value = Some(u64::from_le_bytes(value));
            match u16::from_le_bytes([tag0, tag1]) {
                0 => statistics.swapped_in = value,
                1 => statistics.swapped_out = value,
                2 => statistics.major_faults = value,
                3 => statistics.minor_faults = value,
                4 => statistics.free = value,
                5 => statistics.total = value,
                6 => statistics.available = value,
                7 => statistics.caches = value,
                8 => statistics.huge_pages = value,
                9 => statistics.huge_page_failures = value,
                _ => {}
            }
        }
        statistics
    }

    /// Each value with its name, for tables.
    pub fn named(&self) -> [(&'static str, Option<u64>); 10] {
        [
            ("swapped_in", self.swapped_in),
            ("swapped_out", self.swapped_out),
            ("major_faults", self.major_faults),
            ("minor_faults", self.minor_faults),
            ("free", self.free),
            ("total", self.total),
            ("available", self.available),
            ("caches", self.caches),
            ("huge_pages", self.huge_pages),
            ("huge_page_failures", self.huge_page_failures),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_by_tag() {
        let entries = [(4_u16, 7_u64), (5, u64::MAX), (99, 1), (4, 8)];
        let bytes = entries.iter().flat_map(|(tag, value)| {
            tag.to_le_bytes().into_iter().chain(value.to_le_bytes()).collect::<Vec<_>>()
        });
        let mut bytes: Vec<u8> = bytes.collect();
        bytes.extend([6, 0, 1]);
        let expected =
            GuestStatistics { free: Some(8), total: Some(u64::MAX), ..GuestStatistics::default() };
        assert_eq!(GuestStatistics::read(&bytes), expected);
    }
}
