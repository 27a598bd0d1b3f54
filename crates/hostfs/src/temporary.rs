//! Files that the guest creates where nothing is mounted.
//!
//! They have no name on the host: each is an inode that exists only as long as this process has a descriptor of it, so
//! nothing is left behind however the process ends.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nerite_hypercall::errno::{EEXIST, EINVAL, ENOSPC, ENOTDIR, EROFS};
use nerite_hypercall::v2::FileAttr;
use rustix::fs::{MemfdFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use vm_memory::VolatileSlice;

use crate::attributes;
use crate::errno::to_guest;
use crate::flags::Flags;
use crate::host::{Reopener, retry};
use crate::limits::Budget;
use crate::transfer::{read, write};

/// Where temporary files are made, and how much may be in them.
#[derive(Debug)]
pub(crate) struct TempStore {
    /// Opened once: where the file system of the host's temporary folder can make files without names.
    folder: Option<OwnedFd>,
    room: Arc<Budget>,
}

impl TempStore {
    pub(crate) fn new(bytes: u64) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(std::env::temp_dir(), flags, Mode::empty()).ok();
        Self { folder, room: Arc::new(Budget::new(bytes)) }
    }

    /// Makes an empty file, on the disk or, where that cannot be, in memory.
    pub(crate) fn create(&self, mode: u32) -> Result<TempFile, i32> {
        let on_disk = self.folder.as_ref().ok_or(Errno::NOENT).and_then(|folder| {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            // The guest's mode is kept aside: the file has to be opened again whatever it is.
            retry(|| rustix::fs::openat(folder, ".", flags, Mode::RUSR | Mode::WUSR))
        });
        let file = match on_disk {
            Ok(file) => file,
            Err(Errno::MFILE | Errno::NFILE) => return Err(nerite_hypercall::errno::EMFILE),
            Err(error) => {
                log::debug!("no temporary file on disk ({error}): making one in memory");
                rustix::fs::memfd_create("nerite-guest", MemfdFlags::CLOEXEC).map_err(to_guest)?
            }
        };
        Ok(TempFile { file, mode: mode & 0o777, room: self.room.clone(), charged: Mutex::new(0) })
    }
}

/// A file without a name on the host.
#[derive(Debug)]
pub(crate) struct TempFile {
    file: OwnedFd,
    mode: u32,
    room: Arc<Budget>,
    /// How much of the room this file takes: its size.
    ///
    /// Held while the file is accessed, because only then is known which byte a write starts at. The host's kernel has a
    /// lock of its own for that; and an access to such a file waits for nobody else.
    charged: Mutex<u64>,
}

impl TempFile {
    fn charged(&self) -> MutexGuard<'_, u64> {
        self.charged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attributes(&self, inode: u64) -> Result<FileAttr, i32> {
        let own = attributes::of_host(&rustix::fs::fstat(&self.file).map_err(to_guest)?);
        let mut attributes = attributes::of_file(inode, self.mode, 0);
        attributes.st_size = own.st_size;
        attributes.st_blksize = own.st_blksize;
        attributes.st_blocks = own.st_blocks;
        (attributes.st_atim, attributes.st_mtim, attributes.st_ctim) =
            (own.st_atim, own.st_mtim, own.st_ctim);
        Ok(attributes)
    }

    /// Opens the file with a position of its own.
    pub(crate) fn open(self: &Arc<Self>, flags: Flags, reopener: Option<&Reopener>) -> Result<OpenTemp, i32> {
        if flags.exclusive {
            return Err(EEXIST);
        }
        if flags.directory {
            return Err(ENOTDIR);
        }
        // The length is not the host's to change: what it gets back has to be counted.
        let host = Flags { truncate: false, append: false, ..flags };
        let host = host.existing().difference(OFlags::NONBLOCK);
        let file = reopener.ok_or(EROFS)?.open(self.file.as_fd(), host)?;
        if flags.truncate {
            let mut charged = self.charged();
            rustix::fs::ftruncate(&self.file, 0).map_err(to_guest)?;
            self.room.give_back(std::mem::take(&mut charged));
        }
        Ok(OpenTemp { node: self.clone(), file, append: flags.append })
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        self.room.give_back(*self.charged());
    }
}

/// An open temporary file.
#[derive(Debug)]
pub(crate) struct OpenTemp {
    node: Arc<TempFile>,
    file: OwnedFd,
    append: bool,
}

impl OpenTemp {
    pub(crate) fn read(&self, slice: &mut VolatileSlice<'_>) -> Result<usize, i32> {
        let _position = self.node.charged();
        read(self.file.as_fd(), slice)
    }

    /// Writes as much as there is room for.
    pub(crate) fn write(&self, slice: &VolatileSlice<'_>) -> Result<usize, i32> {
        if slice.is_empty() {
            return Ok(0);
        }
        let mut charged = self.node.charged();
        let from = if self.append { SeekFrom::End(0) } else { SeekFrom::Current(0) };
        let start = rustix::fs::seek(&self.file, from).map_err(to_guest)?;
        let end = start.saturating_add(slice.len() as u64);
        let growth = end.saturating_sub(*charged);
        let granted = self.node.room.take(growth);
        let last = if granted == growth { end } else { charged.saturating_add(granted) };
        let length = usize::try_from(last.saturating_sub(start)).unwrap_or(0).min(slice.len());
        let result = match slice.subslice(0, length) {
            Ok(part) if !part.is_empty() => write(self.file.as_fd(), &part),
            _ => Err(ENOSPC),
        };
        let written = *result.as_ref().unwrap_or(&0) as u64;
        let size = if written == 0 { *charged } else { start.saturating_add(written).max(*charged) };
        let used = size.saturating_sub(*charged);
        self.node.room.give_back(granted.saturating_sub(used));
        *charged = size;
        result
    }

    pub(crate) fn seek(&self, to: SeekFrom) -> Result<u64, i32> {
        let _position = self.node.charged();
        rustix::fs::seek(&self.file, to).map_err(|error| match error {
            // Beyond what a file can be.
            Errno::OVERFLOW => EINVAL,
            error => to_guest(error),
        })
    }

    pub(crate) fn attributes(&self, inode: u64) -> Result<FileAttr, i32> {
        self.node.attributes(inode)
    }
}

#[cfg(test)]
mod tests {
    use nerite_hypercall::file::{O_CREAT, O_RDWR};

    use super::*;

    /// The host's kernel frees an inode without a name with its last descriptor, also of a process that is killed.
    #[test]
    fn files_have_no_name_on_the_host() {
        let on_disk = TempStore::new(100);
        assert!(on_disk.folder.is_some());
        let in_memory = TempStore { folder: None, ..TempStore::new(100) };
        let reopener = Reopener::new().unwrap();
        for store in [on_disk, in_memory] {
            let file = Arc::new(store.create(0o4640).unwrap());
            assert_eq!(rustix::fs::fstat(&file.file).unwrap().st_nlink, 0);
            let open = file.open(Flags::new(O_CREAT | O_RDWR).unwrap(), Some(&reopener)).unwrap();
            let (mut from, mut to) = (*b"abc", [0; 4]);
            assert_eq!(open.write(&VolatileSlice::from(&mut from[..])), Ok(3));
            assert_eq!(open.seek(SeekFrom::Start(1)), Ok(1));
            assert_eq!(open.read(&mut VolatileSlice::from(&mut to[..])), Ok(2));
            assert_eq!(to, *b"bc\0\0");
            let attributes = open.attributes(7).unwrap();
            assert_eq!(
                (attributes.st_ino, attributes.st_mode, attributes.st_nlink, attributes.st_size),
                (7, 0o100_640, 1, 3)
            );
            assert_eq!(store.room.take(u64::MAX), 97);
            drop((open, file));
            assert_eq!(store.room.take(u64::MAX), 3);
        }
    }
}
