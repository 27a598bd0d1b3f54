//! Ranges of guest-physical addresses.

use std::fmt;

/// The size of a small page in bytes (Intel SDM vol. 3, 5.5): 4 KiB.
pub const PAGE: u64 = 4 << 10;
/// [`PAGE`] as a length.
#[allow(clippy::cast_possible_truncation, reason = "4096 fits every usize")]
pub(crate) const PAGE_LENGTH: usize = PAGE as usize;
/// The size of a large page in bytes, which is also the granularity of guest RAM: 2 MiB.
pub const LARGE_PAGE: u64 = 2 << 20;
/// Start of the gap in guest RAM: 3 GiB. The gap holds the APICs and the memory windows of PCI
/// devices.
pub const GAP_START: u64 = 3 << 30;
/// End of the gap in guest RAM: 4 GiB.
pub const GAP_END: u64 = 4 << 30;

/// A range of guest-physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Region {
    /// The first address.
    pub start: u64,
    /// The size in bytes.
    pub size: u64,
}

impl Region {
    /// The range from `start` up to, but not including, `end`; empty if `end` is below `start`.
    #[must_use]
    pub const fn from_bounds(start: u64, end: u64) -> Self {
        Self { start, size: end.saturating_sub(start) }
    }

    /// The first address after the range, or `u64::MAX` if that does not fit.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// Returns `true` if all of `other` lies within this range. An empty `other` does where its
    /// start does, the end included.
    #[must_use]
    pub const fn contains(&self, other: &Self) -> bool {
        match other.start.checked_add(other.size) {
            Some(end) => other.start >= self.start && end <= self.end(),
            None => false,
        }
    }

    /// Returns `true` if the two ranges share an address.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.size != 0 && other.size != 0 && self.start < other.end() && other.start < self.end()
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end())
    }
}

/// `value` rounded up to a multiple of `unit`, a power of two; `None` if that does not fit.
pub(crate) const fn align_up(value: u64, unit: u64) -> Option<u64> {
    value.checked_next_multiple_of(unit)
}

/// `value` rounded down to a multiple of `unit`, a power of two.
pub(crate) const fn align_down(value: u64, unit: u64) -> u64 {
    value & !unit.wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_overlaps() {
        let a = Region { start: 0x1000, size: 0x1000 };
        assert_eq!(a.end(), 0x2000);
        assert_eq!(Region::from_bounds(0x1000, 0x2000), a);
        assert_eq!(Region::from_bounds(0x2000, 0x1000).size, 0);
        assert!(a.overlaps(&Region { start: 0x1fff, size: 1 }));
        assert!(!a.overlaps(&Region { start: 0x2000, size: 1 }));
        assert!(!a.overlaps(&Region { start: 0xfff, size: 1 }));
        assert!(!a.overlaps(&Region { start: 0x1800, size: 0 }), "an empty range shares nothing");
        assert!(a.contains(&Region { start: 0x2000, size: 0 }));
        assert!(!a.contains(&Region { start: 0x1800, size: 0x801 }));
        assert!(
            !a.contains(&Region { start: u64::MAX, size: 2 }),
            "a range that wraps lies nowhere"
        );
        assert_eq!(Region { start: u64::MAX, size: 2 }.end(), u64::MAX);
        assert_eq!(a.to_string(), "0x1000..0x2000");
    }

    #[test]
    fn rounding() {
        assert_eq!(align_up(0x1001, PAGE), Some(0x2000));
        assert_eq!(align_up(0x1000, PAGE), Some(0x1000));
        assert_eq!(align_up(u64::MAX, PAGE), None);
        assert_eq!(align_down(0x1fff, PAGE), 0x1000);
    }
}
