//! Digests of files.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::str::FromStr;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Unit in which zeros are recognised, in bytes.
pub(crate) const PAGE: u64 = 4096;
/// Number of bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// A BLAKE3 digest, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(blake3::Hash);

impl Digest {
    /// Digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes))
    }

    /// Digest of the first `size` bytes of a file, or of all if it has fewer. The file's position
    /// stays.
    pub(crate) fn of_file(file: &File, size: u64) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        let mut offset = 0_u64;
        loop {
            let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(CHUNK).min(CHUNK);
            match file.read_at(buffer.get_mut(..left).unwrap_or_default(), offset) {
                Ok(0) => return Ok(Self(hasher.finalize())),
                Ok(length) => {
                    hasher.update(buffer.get(..length).unwrap_or_default());
                    offset = offset.saturating_add(length as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Digest of the first `size` bytes of a sparse file: of each page that is not all zeros, its
    /// number (64 bits, little-endian) and contents.
    ///
    /// So holes cost nothing, and a copy with zeros in their place has the same digest.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn of_sparse(file: &File, size: u64) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        let mut position = 0;
        while let Some(data) = next_data(file, position)?.filter(|data| *data < size) {
            // A page that begins in a hole and ends in data counts as a whole.
            let mut next = data.max(position) & !PAGE.wrapping_sub(1);
            let end = end_of_data(file, data)?.min(size);
            while next < end {
                let left = usize::try_from(size.saturating_sub(next)).unwrap_or(usize::MAX);
                let chunk = buffer.get_mut(..left.min(CHUNK)).unwrap_or_default();
                file.read_exact_at(chunk, next)?;
                for page in chunk.chunks(CHUNK_PAGE) {
                    if page.iter().any(|byte| *byte != 0) {
                        hasher.update(&next.checked_div(PAGE).unwrap_or(0).to_le_bytes());
                        hasher.update(page);
                    }
                    next = next.saturating_add(page.len() as u64);
                }
            }
            position = next;
        }
        Ok(Self(hasher.finalize()))
    }
}

/// [`PAGE`] as a length.
#[allow(clippy::cast_possible_truncation, reason = "4096 fits every usize")]
const CHUNK_PAGE: usize = PAGE as usize;

/// Offset of the first data at or after `position`; `None` if there is only a hole.
pub(crate) fn next_data(file: &File, position: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(position)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Offset of the first hole after the data at `position`.
pub(crate) fn end_of_data(file: &File, position: u64) -> io::Result<u64> {
    // A file that shrinks meanwhile has a hole nowhere; reading it fails then.
    Ok(rustix::fs::seek(file, SeekFrom::Hole(position))?)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        blake3::Hash::from_hex(text).map(Self).map_err(|_| "a digest has 64 hexadecimal digits")
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn holes_and_zeros_have_the_same_digest() {
        let size = 300 * PAGE;
        let sparse = tempfile::tempfile().unwrap();
        sparse.set_len(size).unwrap();
        let mut full = tempfile::tempfile().unwrap();
        full.write_all(&vec![0; 300 * 4096]).unwrap();
        assert_eq!(Digest::of_sparse(&sparse, size).unwrap(), Digest::of(&[]));
        for (offset, byte) in [(0, 1), (17 * PAGE + 5, 2), (299 * PAGE + 4095, 3)] {
            for file in [&sparse, &full] {
                file.write_all_at(&[byte], offset).unwrap();
            }
            let digest = Digest::of_sparse(&sparse, size).unwrap();
            assert_eq!(digest, Digest::of_sparse(&full, size).unwrap());
            assert_ne!(digest, Digest::of(&[]));
        }
    }

    #[test]
    fn a_page_elsewhere_or_another_byte_changes_the_digest() {
        let digest = |pages: &[(u64, u8)]| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(64 * PAGE).unwrap();
            for (page, byte) in pages {
                file.write_all_at(&[*byte; 4096], page * PAGE).unwrap();
            }
            Digest::of_sparse(&file, 64 * PAGE).unwrap()
        };
        let all = [&[(3, 7)][..], &[(4, 7)], &[(3, 8)], &[(3, 7), (4, 7)], &[(63, 7)]].map(digest);
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
    }

    #[test]
    fn a_file_has_the_digest_of_its_bytes_and_stays_where_it_is() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes = vec![7; 3 * CHUNK + 5];
        file.write_all(&bytes).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        assert_eq!(Digest::of_file(&file, u64::MAX).unwrap(), Digest::of(&bytes));
        assert_eq!(Digest::of_file(&file, 9).unwrap(), Digest::of(&bytes[..9]));
        assert_eq!(std::io::Seek::stream_position(&mut file).unwrap(), 0);
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        assert!(Digest::of_sparse(&file, 2 * PAGE).is_err());
    }

    #[test]
    fn digests_are_hexadecimal_digits() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        for bad in ["", "00", &"g".repeat(64), &"0".repeat(65)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
