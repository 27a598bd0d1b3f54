//! Bytes kept once and shared by all that look into them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A part of a shared buffer; cloning and slicing copy nothing.
#[derive(Clone)]
pub(crate) struct Bytes {
    buffer: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Bytes {
    /// Takes over a whole buffer.
    pub(crate) fn new(buffer: Vec<u8>) -> Self {
        let range = 0..buffer.len();
        Self { buffer: Arc::new(buffer), range }
    }

    /// The bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.buffer.get(self.range.clone()).unwrap_or_default()
    }

    /// A part of these bytes, or `None` if `range` is not inside.
    pub(crate) fn slice(&self, range: Range<usize>) -> Option<Self> {
        self.as_slice().get(range.clone())?;
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        Some(Self { buffer: Arc::clone(&self.buffer), range: start..end })
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} of {})", self.range.len(), self.buffer.len())
    }
}

/// The part of `bytes` given by an offset and a size as a file names them.
pub(crate) fn part(bytes: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    bytes.get(file_range(offset, size)?)
}

/// An offset and a size as a file names them, as a range of indices.
pub(crate) fn file_range(offset: u64, size: u64) -> Option<Range<usize>> {
    let end = offset.checked_add(size)?;
    Some(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_slices_share_and_stay_inside() {
        let all = Bytes::new((0..10).collect());
        let middle = all.slice(2..8).unwrap();
        assert_eq!(middle.as_slice(), [2, 3, 4, 5, 6, 7]);
        assert_eq!(middle.slice(1..3).unwrap().as_slice(), [3, 4]);
        assert_eq!(middle.slice(6..6).unwrap().as_slice(), []);
        assert!(middle.slice(0..7).is_none());
        assert!(middle.slice(0..usize::MAX).is_none());
    }

    #[test]
    fn parts_do_not_overflow() {
        assert_eq!(part(&[1, 2, 3], 1, 2), Some(&[2, 3][..]));
        assert_eq!(part(&[1, 2, 3], 2, 2), None);
        assert_eq!(part(&[1, 2, 3], u64::MAX, 2), None);
    }
}
