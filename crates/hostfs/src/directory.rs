//! Directory entries, in the form of Linux's `getdents64`.

use std::collections::VecDeque;
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
/// Bytes of entries taken from the host at a time.
const HOST_BUFFER: usize = 32 << 10;

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

    /// Appends the entry to `listing`, unless that would then be longer than `limit`.
    fn append(&self, listing: &mut Vec<u8>, limit: usize) -> Option<()> {
        let size = size_of::<DirentHeader>().checked_add(self.name.len())?.checked_add(1)?;
        let size = size.checked_next_multiple_of(DIRENT_ALIGN)?;
        let end = listing.len().checked_add(size).filter(|&end| end <= limit)?;
        let header =
            DirentHeader { ino: self.inode, off: 0, reclen: u16::try_from(size).ok()?, kind: self.kind };
        listing.extend_from_slice(header.as_bytes());
        listing.extend_from_slice(&self.name);
        listing.resize(end, 0);
        Some(())
    }
}

/// Takes entries from the front as long as they fit.
fn fill(entries: &mut VecDeque<Entry>, listing: &mut Vec<u8>, limit: usize) -> Result<(), i32> {
    while let Some(entry) = entries.front() {
        if entry.append(listing, limit).is_none() {
            return if listing.is_empty() { Err(EINVAL) } else { Ok(()) };
        }
        entries.pop_front();
    }
    Ok(())
}

/// Where a reader of a host directory is.
#[derive(Debug, Default)]
pub(crate) struct HostListing {
    /// Entries that the host gave and the guest's last buffer had no room for.
    pending: Mutex<VecDeque<Entry>>,
}

impl HostListing {
    fn pending(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next entries, at most `limit` bytes of them; none at the end. No lock is held while the host reads.
    pub(crate) fn next(&self, directory: impl AsFd, limit: usize) -> Result<Vec<u8>, i32> {
        let mut entries = std::mem::take(&mut *self.pending());
        let mut listing = Vec::new();
        let read = if entries.is_empty() { read_host(directory, &mut entries) } else { Ok(()) };
        let filled = read.and_then(|()| fill(&mut entries, &mut listing, limit.min(MAX_LISTING)));
        // What this reader did not get comes before what another one put there meanwhile.
        let mut pending = self.pending();
        entries.append(&mut pending);
        *pending = entries;
        filled.map(|()| listing)
    }

    /// Starts again.
    pub(crate) fn restart(&self, directory: impl AsFd) -> Result<(), i32> {
        rustix::fs::seek(directory, SeekFrom::Start(0)).map_err(to_guest)?;
        self.pending().clear();
        Ok(())
    }
}

/// Where a reader of a directory in memory is.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    state: Mutex<(VecDeque<Entry>, Cursor)>,
}

/// What of a directory in memory comes next; nothing at its beginning.
pub(crate) type Cursor = Option<Vec<u8>>;

impl Listing {
    /// The next entries, at most `limit` bytes of them; none at the end. `page` gives some entries from a place on, and
    /// moves the place.
    ///
    /// A page at a time, because a descriptor must not cost as much as its directory is large.
    pub(crate) fn next(
        &self,
        limit: usize,
        page: impl FnOnce(&mut Cursor) -> Vec<Entry>,
    ) -> Result<Vec<u8>, i32> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (entries, cursor) = &mut *state;
        if entries.is_empty() {
            *entries = page(cursor).into();
        }
        let mut listing = Vec::new();
        fill(entries, &mut listing, limit.min(MAX_LISTING)).map(|()| listing)
    }

    /// Starts again.
    pub(crate) fn restart(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (VecDeque::new(), None);
    }
}

/// Takes one buffer full of entries from the host.
fn read_host(directory: impl AsFd, entries: &mut VecDeque<Entry>) -> Result<(), i32> {
    let mut buffer = Vec::with_capacity(HOST_BUFFER);
    let mut host = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = host.next() {
        let entry = entry.map_err(to_guest)?;
        entries.push_back(Entry {
            inode: entry.ino(),
            kind: dirent_type(entry.file_type()),
            name: entry.file_name().to_bytes().to_vec(),
        });
        if host.is_buffer_empty() {
            break;
        }
    }
    Ok(())
}
