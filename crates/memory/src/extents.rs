//! Data of sparse files.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::PAGE;
use crate::region::{align_down, align_up};

/// Maximum number of distinguished extents of a file. Each takes two of the 65 530 mappings
/// that a process has (`vm.max_map_count`), itself and the hole after it.
pub(crate) const MAX_EXTENTS: usize = 8192;

/// The extents of a sparse file that are not holes, found one after the other.
pub(crate) struct Extents<'a> {
    file: &'a File,
    left: usize,
}

impl<'a> Extents<'a> {
    pub(crate) fn of(file: &'a File) -> Self {
        Self { file, left: MAX_EXTENTS }
    }

    /// Extents within `range` of the file, as whole pages in ascending order, apart from each
    /// other. Takes a time in proportion to their number. Beyond [`MAX_EXTENTS`] in all calls
    /// together the rest of the range is one extent.
    ///
    /// # Errors
    /// Fails if the file cannot be asked.
    pub(crate) fn within(&mut self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let mut extents: Vec<Range<u64>> = Vec::new();
        let mut position = range.start;
        while let Some(data) = self.next_data(position)?.filter(|data| *data < range.end) {
            let start = align_down(data, PAGE).max(range.start);
            let is_last = self.left == 0;
            let end = if is_last { range.end } else { self.end_of_data(data)? };
            let end = align_up(end, PAGE).unwrap_or(range.end).min(range.end);
            // A file that changes meanwhile must not keep this going.
            if end <= position {
                return Err(io::Error::other("the file changes while it is read"));
            }
            match extents.last_mut() {
                // The end of one and the start of the next are in the same page or adjoin.
                Some(before) if before.end >= start => before.end = end,
                _ => {
                    extents.push(start..end);
                    self.left = self.left.saturating_sub(1);
                }
            }
            if is_last {
                break;
            }
            position = end;
        }
        Ok(extents)
    }

    /// Offset of the first data at or after `position`; `None` if there is only a hole.
    fn next_data(&self, position: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(self.file, SeekFrom::Data(position)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Offset of the first hole after the data at `position`.
    fn end_of_data(&self, position: u64) -> io::Result<u64> {
        Ok(rustix::fs::seek(self.file, SeekFrom::Hole(position))?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    /// A file in memory, whose holes are exact.
    fn file(pages: u64, data: &[u64]) -> File {
        let file = crate::test_file::in_memory();
        file.set_len(pages * PAGE).unwrap();
        for page in data {
            file.write_all_at(b"x", page * PAGE + 7).unwrap();
        }
        file
    }

    #[test]
    fn extents_are_the_pages_with_data() {
        let file = file(100, &[0, 1, 5, 40, 41, 42, 99]);
        let mut extents = Extents::of(&file);
        let pages = |from: u64, to: u64| from * PAGE..to * PAGE;
        assert_eq!(
            extents.within(pages(0, 100)).unwrap(),
            [pages(0, 2), pages(5, 6), pages(40, 43), pages(99, 100)]
        );
        assert_eq!(
            extents.within(pages(1, 42)).unwrap(),
            [pages(1, 2), pages(5, 6), pages(40, 42)]
        );
        assert_eq!(extents.within(pages(6, 40)).unwrap(), []);
        assert_eq!(extents.left, MAX_EXTENTS - 7);
    }

    #[test]
    fn beyond_the_limit_the_rest_is_one_extent() {
        let file = file(100, &[0, 10, 20, 30, 40]);
        let mut extents = Extents { left: 3, ..Extents::of(&file) };
        let found = extents.within(0..100 * PAGE).unwrap();
        let starts: Vec<_> = found.iter().map(|extent| extent.start / PAGE).collect();
        assert_eq!((starts, found[3].end), (vec![0, 10, 20, 30], 100 * PAGE));
    }
}
