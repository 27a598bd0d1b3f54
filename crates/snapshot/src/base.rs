//! Snapshots that begin as a copy of an earlier one's memory.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{copy_file_range, ioctl_ficlone};
use rustix::io::Errno;

use crate::digest::{end_of_data, next_data};
use crate::{Error, Snapshot, Staging};

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 30;

impl Staging {
    /// Fills the file `memory` with that of the snapshot in the directory `base`, for a machine
    /// that then writes only the pages that differ. The two files share their room where the file
    /// system can; elsewhere the data is copied, and holes stay holes.
    ///
    /// Each page is compared before it stays, so `base` need not be of the same guest, and damage
    /// to it is not inherited.
    ///
    /// # Errors
    /// Fails if `base` is no snapshot, or the host cannot copy the file.
    pub fn copy_memory_of(&self, base: &Path) -> Result<(), Error> {
        let base_files = Snapshot::open(base)?;
        let failed =
            |source| Error::Host { path: base.to_owned(), what: "copying its memory", source };
        copy(base_files.memory(), &self.files().memory).map_err(failed)
    }
}

/// Makes the empty file `to` a copy of `from`.
fn copy(from: &File, to: &File) -> io::Result<()> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut position = 0;
    while let Some(data) = next_data(from, position)?.filter(|data| *data < size) {
        let end = end_of_data(from, data)?.min(size);
        copy_range(from, to, data, end)?;
        position = end;
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let left = usize::try_from(end.saturating_sub(read)).unwrap_or(PIECE).min(PIECE);
        match copy_file_range(from, Some(&mut read), to, Some(&mut written), left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            // Between two file systems, before Linux 5.19.
            Err(Errno::XDEV) => return copy_bytes(from, to, read, end),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_bytes(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut buffer = vec![0; 256 << 10];
    let mut position = start;
    while position < end {
        let left = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let piece = buffer.get_mut(..length).unwrap_or_default();
        from.read_exact_at(piece, position)?;
        to.write_all_at(piece, position)?;
        position = position.saturating_add(length as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    const PAGE: u64 = 4096;

    fn sparse() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1000 * PAGE).unwrap();
        for (byte, page) in (1_u8..).zip([0, 1, 500, 999]) {
            file.write_all_at(&[byte; 4096], page * PAGE).unwrap();
        }
        file
    }

    fn bytes(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_copy_has_the_same_contents_and_holes() {
        let (from, to) = (sparse(), tempfile::tempfile().unwrap());
        copy(&from, &to).unwrap();
        assert!(bytes(&from) == bytes(&to));
        assert!(to.metadata().unwrap().blocks() * 512 < 100 * PAGE);
    }

    #[test]
    fn bytes_are_copied_where_the_kernel_does_not() {
        let (from, to) = (sparse(), tempfile::tempfile().unwrap());
        copy_bytes(&from, &to, 0, 1000 * PAGE).unwrap();
        assert!(bytes(&from) == bytes(&to));
    }

    #[test]
    fn something_else_is_no_base() {
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::create(&folder.path().join("new")).unwrap();
        let error = staging.copy_memory_of(&folder.path().join("nothing")).unwrap_err();
        assert!(error.to_string().contains("nothing"), "{error}");
    }
}
