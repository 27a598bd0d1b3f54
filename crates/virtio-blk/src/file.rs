//! A file or block device of the host as a disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nerite_memory::GuestRam;
use nerite_virtio::Segment;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;

use crate::disk::{Disk, Range, SECTOR};
use crate::vectors;

/// Zeros that are written at once where the file system cannot zero a range by itself.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// A file cannot be a disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It cannot be opened.
    #[error("cannot open the disk {path} for {}", if *read_only { "reading" } else { "reading and writing" })]
    Open {
        /// Which one.
        path: PathBuf,
        /// `true` if it was to be opened for reading only.
        read_only: bool,
        /// Error of the host.
        source: io::Error,
    },
    /// It is neither a file nor a block device.
    #[error("the disk {0} is neither a file nor a block device")]
    Kind(PathBuf),
    /// Its size cannot be found out.
    #[error("cannot find out how large the disk {path} is")]
    Size {
        /// Which one.
        path: PathBuf,
        /// Error of the host.
        source: io::Error,
    },
    /// There is not one whole sector in it.
    #[error("the disk {path} has {size} bytes, and a sector has 512")]
    Empty {
        /// Which one.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// Another process holds a lock on it, and one of the two wants to write.
    #[error(
        "the disk {0} is in use by another process that has locked it: a disk that is written can only be given to one guest"
    )]
    InUse(PathBuf),
}

/// A file or block device as a disk: byte for byte, up to the last whole sector. Its size is taken
/// once.
///
/// The file is locked (flock(2)) for as long as it is open: for itself alone to be written, with
/// others to be read.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    sectors: u64,
    read_only: bool,
}

impl RawFile {
    /// Opens `path`.
    ///
    /// # Errors
    /// If it cannot be opened, is no file or block device, holds no sector, or another process has
    /// locked it.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, OpenError> {
        // Something that is no file, such as a pipe, does not make us wait.
        let mut options = OpenOptions::new();
        options.read(true).write(!read_only).custom_flags(libc::O_NONBLOCK);
        let open = |source| OpenError::Open { path: path.to_owned(), read_only, source };
        let mut file = options.open(path).map_err(open)?;
        let kind = file.metadata().map_err(open)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::Kind(path.to_owned()));
        }
        let operation = if read_only {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        match flock(&file, operation) {
            Err(Errno::WOULDBLOCK) => return Err(OpenError::InUse(path.to_owned())),
            // Not every file system has locks.
            Err(error) => log::debug!("the disk {} cannot be locked: {error}", path.display()),
            Ok(()) => {}
        }
        let size = file.seek(SeekFrom::End(0));
        let size = size.map_err(|source| OpenError::Size { path: path.to_owned(), source })?;
        let sectors = size / SECTOR;
        if sectors == 0 {
            return Err(OpenError::Empty { path: path.to_owned(), size });
        }
        Ok(Self { file, sectors, read_only })
    }

    fn write_zeroes(&self, range: Range) -> io::Result<()> {
        let Range { mut offset, mut length } = range;
        while length > 0 {
            let now = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROES.len());
            let zeroes = ZEROES.get(..now).unwrap_or_default();
            self.file.write_all_at(zeroes, offset)?;
            offset = offset.saturating_add(now as u64);
            length = length.saturating_sub(now as u64);
        }
        Ok(())
    }
}

impl Disk for RawFile {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, ram: &GuestRam, to: &[Segment], offset: u64) -> io::Result<u64> {
        vectors::read_at(&self.file, ram, to, offset)
    }

    fn write(&mut self, ram: &GuestRam, from: &[Segment], offset: u64) -> io::Result<u64> {
        vectors::write_at(&self.file, ram, from, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&mut self, Range { offset, length }: Range) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, offset, length) {
            // Keeping what is not needed is as good (5.2.6.2).
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn zero(&mut self, range: Range, may_discard: bool) -> io::Result<()> {
        if range.length == 0 {
            return Ok(());
        }
        let flags =
            if may_discard { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        match fallocate(&self.file, flags | FallocateFlags::KEEP_SIZE, range.offset, range.length) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => self.write_zeroes(range),
            Err(error) => Err(error.into()),
        }
    }
}
