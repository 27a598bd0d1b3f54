//! Directory entries, in the form of Linux's `getdents64`.

use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nerite_hypercall::errno::EINVAL;
use nerite_hypercall::v2::{DIRENT_ALIGN, DirentHeader, file_type};
use rustix::fs::{RawDir, SeekFrom};
use zerocopy::IntoBytes;

use crate::attributes::dirent_type;
use crate::errno::to_guest;

/// The most bytes of entries that one call gives, so that a guest's length decides nothing.
pub(crate) const MAX_LISTING: usize = 64 << 10;
/// Buffer in bytes for entries of the host while a call lasts: about what the guest has room for,
/// and at least one entry.
const MIN_BUFFER: usize = 512;
const MAX_BUFFER: usize = 32 << 10;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) inode: u64,
    /// One of [`file_type`].
    pub(crate) kind: u8,
    pub(crate) name: Vec<u8>,
}

impl Entry {
    /// The two entries each directory has.
    pub(crate) fn dots(inode: u64, parent: u64) -> [Self; 2] {
        [(inode, &b"."[..]), (parent, b"..")].map(|(inode, name)| Self {
            inode,
            kind: file_type::DIRECTORY,
            name: name.to_vec(),
        })
    }
}

/// Appends an entry to `listing`, unless that would then be longer than `limit`.
fn append(listing: &mut Vec<u8>, limit: usize, inode: u64, kind: u8, name: &[u8]) -> Option<()> {
    let size = size_of::<DirentHeader>().checked_add(name.len())?.checked_add(1)?;
    let size = size.checked_next_multiple_of(DIRENT_ALIGN)?;
    let end = listing.len().checked_add(size).filter(|&end| end <= limit)?;
    let header = DirentHeader { ino: inode, off: 0, reclen: u16::try_from(size).ok()?, kind };
    listing.extend_from_slice(header.as_bytes());
    listing.extend_from_slice(name);
    listing.resize(end, 0);
    Some(())
}

/// Position of a reader in a host directory. It is kept by the host's kernel with the descriptor,
/// so that an open directory takes no memory here.
#[derive(Debug, Default)]
pub(crate) struct HostListing(Mutex<()>);

impl HostListing {
    /// Readers of one descriptor take turns: a position is read, moved on and, if the guest's
    /// buffer is full, moved back.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next entries, at most `limit` bytes of them; none at the end.
    pub(crate) fn next(&self, directory: impl AsFd, limit: usize) -> Result<Vec<u8>, i32> {
        let limit = limit.min(MAX_LISTING);
        let _turn = self.turn();
        let directory = directory.as_fd();
        let mut position = rustix::fs::seek(directory, SeekFrom::Current(0)).map_err(to_guest)?;
        let mut listing = Vec::new();
        let mut buffer = Vec::with_capacity(limit.clamp(MIN_BUFFER, MAX_BUFFER));
        let mut host = RawDir::new(directory, buffer.spare_capacity_mut());
        while let Some(entry) = host.next() {
            let entry = entry.map_err(to_guest)?;
            let (kind, name) = (dirent_type(entry.file_type()), entry.file_name().to_bytes());
            let next = entry.next_entry_cookie();
            if append(&mut listing, limit, entry.ino(), kind, name).is_none() {
                // The host gave more than there is room for: from here on it gives it again.
                rustix::fs::seek(directory, SeekFrom::Start(position)).map_err(to_guest)?;
                return if listing.is_empty() { Err(EINVAL) } else { Ok(listing) };
            }
            position = next;
            if host.is_buffer_empty() {
                break;
            }
        }
        Ok(listing)
    }

    /// Position that the host's kernel keeps; it means something to its file system only.
    pub(crate) fn position(&self, directory: impl AsFd) -> Result<u64, i32> {
        let _turn = self.turn();
        rustix::fs::seek(directory, SeekFrom::Current(0)).map_err(to_guest)
    }

    /// Starts again.
    pub(crate) fn restart(&self, directory: impl AsFd) -> Result<(), i32> {
        let _turn = self.turn();
        rustix::fs::seek(directory, SeekFrom::Start(0)).map(drop).map_err(to_guest)
    }
}

/// Name of the last entry that a reader of a directory in memory was given; `None` at the
/// beginning.
pub(crate) type Cursor = Option<Vec<u8>>;

/// Position of a reader in a directory in memory.
#[derive(Debug, Default)]
pub(crate) struct Listing(Mutex<Cursor>);

impl Listing {
    fn cursor(&self) -> MutexGuard<'_, Cursor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next entries, at most `limit` bytes of them; none at the end. `page` gives some entries
    /// after a name.
    ///
    /// Only a name is kept, because a descriptor must not cost as much as its directory is large.
    pub(crate) fn next(
        &self,
        limit: usize,
        page: impl FnOnce(Option<&[u8]>) -> Vec<Entry>,
    ) -> Result<Vec<u8>, i32> {
        let mut cursor = self.cursor();
        let mut listing = Vec::new();
        for entry in page(cursor.as_deref()) {
            if append(&mut listing, limit.min(MAX_LISTING), entry.inode, entry.kind, &entry.name)
                .is_none()
            {
                return if listing.is_empty() { Err(EINVAL) } else { Ok(listing) };
            }
            *cursor = Some(entry.name);
        }
        Ok(listing)
    }

    /// A reader that was given the entries up to this one.
    pub(crate) fn after(cursor: Cursor) -> Self {
        Self(Mutex::new(cursor))
    }

    /// Name of the last entry.
    pub(crate) fn last(&self) -> Cursor {
        self.cursor().clone()
    }

    /// Starts again.
    pub(crate) fn restart(&self) {
        *self.cursor() = None;
    }
}
