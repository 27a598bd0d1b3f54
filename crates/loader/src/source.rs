//! Source of a kernel's bytes: memory, or a file that is read on demand.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use vm_memory::bitmap::BitmapSlice;
use vm_memory::volatile_memory::Error as VolatileError;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryError, Permissions, ReadVolatile, VolatileSlice,
};

use crate::bytes::{self, Bytes};
use crate::{Error, text};

/// A table in a file is read in pieces of this many bytes at most.
const CHUNK: u64 = 64 << 10;
/// Of a name in an error no more bytes are read, which is more than are shown.
const MAX_NAME: u64 = 4096;

/// The bytes of an ELF file.
#[derive(Debug)]
pub(crate) enum Source {
    /// All in memory.
    Memory(Bytes),
    /// In a file.
    File(ImageFile),
}

/// A file that others may write to or cut short at any time: what has been looked at once may be
/// something else when it is read again.
#[derive(Debug)]
pub(crate) struct ImageFile {
    /// The lock is for its position.
    file: Mutex<File>,
    /// Size in bytes when the file was opened; bytes appended later are ignored.
    size: u64,
    /// Its first bytes.
    head: Vec<u8>,
}

impl ImageFile {
    pub(crate) fn new(file: File, size: u64, head: Vec<u8>) -> Self {
        Self { file: Mutex::new(file), size, head }
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.read_exact_at(&mut bytes, range.start).map_err(failed)?;
        Ok(bytes)
    }
}

/// Error of a failed read.
fn failed(error: io::Error) -> Error {
    match error.kind() {
        // Nothing is read that lies beyond the end the file had.
        io::ErrorKind::UnexpectedEof => Error::Shrunk,
        _ => Error::Read(error),
    }
}

impl Source {
    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.as_slice().len() as u64,
            Self::File(file) => file.size,
        }
    }

    /// The bytes of a part, or `None` if it is not inside. No more are read than are asked for.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub(crate) fn part(&self, offset: u64, size: u64) -> Result<Option<Cow<'_, [u8]>>, Error> {
        if size == 0 {
            return Ok(Some(Cow::Borrowed(&[])));
        }
        match self {
            Self::Memory(all) => Ok(bytes::part(all.as_slice(), offset, size).map(Cow::Borrowed)),
            Self::File(file) => match offset.checked_add(size) {
                Some(end) if end <= file.size => match bytes::part(&file.head, offset, size) {
                    Some(part) => Ok(Some(Cow::Borrowed(part))),
                    None => file.read(offset..end).map(Cow::Owned).map(Some),
                },
                _ => Ok(None),
            },
        }
    }

    /// Calls `visit` for the bytes of a part, piece by piece, each a multiple of `entry` bytes long
    /// as the part is. What is not inside is left out.
    ///
    /// # Errors
    ///
    /// Those of `visit`, and if the file cannot be read.
    pub(crate) fn pieces(
        &self,
        part: &Range<u64>,
        entry: u64,
        mut visit: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let chunk = match self {
            Self::Memory(_) => u64::MAX,
            Self::File(_) => CHUNK.saturating_sub(CHUNK.checked_rem(entry).unwrap_or(0)),
        };
        let mut at = part.start;
        while at < part.end {
            let size = part.end.saturating_sub(at).min(chunk);
            let Some(piece) = self.part(at, size)? else { break };
            visit(&piece)?;
            at = at.saturating_add(size);
        }
        Ok(())
    }

    /// The name at a place with `room` bytes from there on, safe to print; `None` if it cannot be
    /// read.
    pub(crate) fn name(&self, offset: u64, room: u64) -> Option<String> {
        let bytes = self.part(offset, room.min(MAX_NAME)).ok()??;
        bytes.split(|&byte| byte == 0).next().map(text::printable)
    }

    /// All bytes in memory.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub(crate) fn whole(&self) -> Result<Bytes, Error> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File(file) => file.read(0..file.size).map(Bytes::new),
        }
    }

    /// Copies a part into guest memory, from a file without a detour.
    ///
    /// # Errors
    ///
    /// If the part is not inside, the file cannot be read, or the memory not be written.
    pub(crate) fn copy_to<M: GuestMemory + ?Sized>(
        &self,
        offset: u64,
        size: u64,
        memory: &M,
        address: GuestAddress,
    ) -> Result<(), Error> {
        let outside = || Error::Memory(GuestMemoryError::InvalidGuestAddress(address));
        let length = usize::try_from(size).map_err(|_| outside())?;
        let slices =
            memory.get_slices(address, length, Permissions::Write).map_err(Error::Memory)?;
        let mut reader = Reader { source: self, offset };
        for slice in slices {
            let mut slice = slice.map_err(Error::Memory)?;
            reader.read_exact_volatile(&mut slice).map_err(|error| match error {
                VolatileError::IOError(error) => failed(error),
                other => Error::Memory(other.into()),
            })?;
        }
        Ok(())
    }
}

/// Reads from a place on.
struct Reader<'a> {
    source: &'a Source,
    offset: u64,
}

impl ReadVolatile for Reader<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        memory: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileError> {
        let known = match self.source {
            Source::Memory(bytes) => bytes.as_slice(),
            Source::File(file) => &file.head,
        };
        let offset = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let mut rest = known.get(offset..).unwrap_or_default();
        let read = match self.source {
            Source::File(file) if rest.is_empty() => {
                let mut file = file.file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(self.offset)).map_err(VolatileError::IOError)?;
                (&*file).read_volatile(memory)?
            }
            _ => rest.read_volatile(memory)?,
        };
        self.offset = self.offset.saturating_add(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use vm_memory::{Bytes as _, GuestMemoryMmap};

    use super::*;

    /// The same bytes in memory and in a file, of which the first 100 have been read.
    fn both(bytes: &[u8]) -> (Source, Source, File) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let head = bytes[..100].to_vec();
        let image = ImageFile::new(file.try_clone().unwrap(), bytes.len() as u64, head);
        (Source::Memory(Bytes::new(bytes.to_vec())), Source::File(image), file)
    }

    fn pattern(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at ^ (at >> 8)).to_le_bytes()[0]).collect()
    }

    #[test]
    fn a_file_has_the_same_parts_as_memory() {
        let bytes = pattern(0x2_8000);
        let (memory, file, _) = both(&bytes);
        assert_eq!((memory.size(), file.size()), (0x2_8000, 0x2_8000));
        let end = bytes.len() as u64;
        for (offset, size) in [
            (0, 64),
            (90, 10),
            (90, 20),
            (end - 5, 5),
            (end - 5, 6),
            (end, 0),
            (end + 9, 0),
            (u64::MAX, 2),
        ] {
            assert_eq!(
                memory.part(offset, size).unwrap(),
                file.part(offset, size).unwrap(),
                "{offset} {size}"
            );
        }
        assert_eq!(memory.whole().unwrap().as_slice(), file.whole().unwrap().as_slice());
        let collect = |source: &Source| {
            let mut all = Vec::new();
            let mut visit = |piece: &[u8]| {
                assert_eq!(piece.len() % 24, 0);
                all.extend_from_slice(piece);
                Ok(())
            };
            source.pieces(&(8..8 + 24 * 6000), 24, &mut visit).unwrap();
            all
        };
        assert!(collect(&memory) == collect(&file));
        assert!(collect(&file) == bytes[8..8 + 24 * 6000]);
    }

    #[test]
    fn memory_gets_what_the_file_has_across_regions() {
        let bytes = pattern(0x5000);
        let (memory, file, _) = both(&bytes);
        for source in [memory, file] {
            let ranges = [(GuestAddress(0x1000), 0x1000), (GuestAddress(0x2000), 0x4000)];
            let ram = GuestMemoryMmap::<()>::from_ranges(&ranges).unwrap();
            source.copy_to(3, 0x4ff0, &ram, GuestAddress(0x1008)).unwrap();
            let mut found = vec![0; 0x4ff2];
            ram.read_slice(&mut found, GuestAddress(0x1007)).unwrap();
            assert_eq!((found[0], found[0x4ff1]), (0, 0));
            assert!(found[1..0x4ff1] == bytes[3..0x4ff3]);
            let error = source.copy_to(0, 0x100, &ram, GuestAddress(0x5f80)).unwrap_err();
            assert!(matches!(error, Error::Memory(_)), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_cut_short_is_an_error() {
        let bytes = pattern(0x5000);
        let (_, source, file) = both(&bytes);
        file.set_len(0x3000).unwrap();
        assert!(matches!(source.part(0x2fff, 2), Err(Error::Shrunk)));
        assert!(matches!(source.whole(), Err(Error::Shrunk)));
        assert!(source.part(0x2fff, 1).unwrap().is_some());
        let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x5000)]).unwrap();
        let error = source.copy_to(0, 0x5000, &ram, GuestAddress(0)).unwrap_err();
        assert!(error.to_string().contains("shorter while it was read"), "{error}");
        // What was there is read all the same, and what has been added is not.
        file.set_len(0x9000).unwrap();
        assert_eq!(source.part(0x4fff, 1).unwrap().unwrap(), vec![0]);
        assert!(source.part(0x4fff, 2).unwrap().is_none());
    }
}
