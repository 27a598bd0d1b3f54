//! [`HostFs`]: every file call a guest can make.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nerite_hypercall::errno::{EEXIST, EISDIR, ENOENT, ENOSPC, ENOTDIR, EROFS};
use nerite_hypercall::v2::FileAttr;
use vm_memory::VolatileSlice;

use crate::attributes;
use crate::directory::Listing;
use crate::flags::Flags;
use crate::host::{MountPoint, Mounts, Reopener};
use crate::image::Image;
use crate::limits::Budget;
use crate::names::{Found, Names, Node};
use crate::open::Open;
use crate::table::Table;
use crate::temporary::TempStore;
use crate::{Error, GuestPath, ImageFile, Limits, Mount};

/// The mode of directories that a guest makes: the call does not say.
const NEW_DIRECTORY_MODE: u32 = 0o777;

/// The files of one guest.
///
/// Shared by all vCPUs; each call stands alone. Errors are positive numbers of
/// [`nerite_hypercall::errno`]. A file on a slow disk, or a pipe without a writer, delays the vCPU
/// that asked, and no other: no lock is held meanwhile.
#[derive(Debug)]
pub struct HostFs {
    /// The longest guest path first.
    mounts: Vec<MountPoint>,
    names: Mutex<Names>,
    pub(crate) table: Table,
    pub(crate) temporary: TempStore,
    pub(crate) written: Budget,
    pub(crate) reopener: Option<Reopener>,
    stop: Option<Arc<OwnedFd>>,
}

impl HostFs {
    /// Opens everything that is mounted: [`Mounts::open`] and [`HostFs::with_mounts`] in one.
    ///
    /// # Errors
    /// Those of the two.
    pub fn new(mounts: &[Mount], image_files: &[ImageFile], limits: Limits) -> Result<Self, Error> {
        Self::with_mounts(Mounts::open(mounts)?, image_files.iter().cloned(), limits)
    }

    /// Takes what has been opened, and the files of an image, which need not have been known then:
    /// one at a time, so that they need not all be in memory.
    ///
    /// Where a mount and an image file have the same path, the mount is seen.
    ///
    /// # Errors
    /// If the names of the image's files are no paths, or one of them is in the way of a mount.
    pub fn with_mounts(
        mounts: Mounts,
        image_files: impl IntoIterator<Item = ImageFile>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let Mounts { mut points, reopener } = mounts;
        let mut names = Names::new(limits.temporary_entries);
        for file in image_files {
            add_image_file(&mut names, &file)?;
        }
        for point in &points {
            let kind = attributes::dirent_type(point.kind());
            names.add_fixed(&point.guest, Node::MountPoint(kind)).map_err(|reason| {
                Error::GuestPath {
                    host: point.path.clone(),
                    // Names have a slash before each part, so the root has none.
                    guest: if point.guest.is_empty() {
                        "/".into()
                    } else {
                        String::from_utf8_lossy(&point.guest).into()
                    },
                    reason,
                }
            })?;
        }
        points.sort_by_key(|point| std::cmp::Reverse(point.guest.len()));
        Ok(Self {
            mounts: points,
            names: Mutex::new(names),
            table: Table::new(limits.open_files),
            temporary: TempStore::new(limits.temporary_bytes),
            written: Budget::new(limits.bytes_written),
            reopener,
            stop: None,
        })
    }

    /// Lets reads and writes that wait for a pipe or device end with `EINTR` as soon as `event` is
    /// readable.
    #[must_use]
    pub fn interrupted_by(mut self, event: Arc<OwnedFd>) -> Self {
        self.stop = Some(event);
        self
    }

    /// The guest's directories in which there is something, the outermost ones: what a kernel has
    /// to mount. The root is not among them. At most 64 KiB of paths, more than a kernel can be
    /// given.
    #[must_use]
    pub fn guest_directories(&self) -> Vec<Vec<u8>> {
        self.names().outermost()
    }

    /// Returns `true` if the guest has no open file and no temporary one: it would not notice other
    /// files of the same names.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.table.is_empty() && !self.names().has_temporary()
    }

    pub(crate) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) -> Option<BorrowedFd<'_>> {
        self.stop.as_ref().map(|event| event.as_fd())
    }

    /// The mount a path is below, and the rest of the path.
    pub(crate) fn mount<'a>(&self, path: &'a GuestPath) -> Option<(&MountPoint, &'a [u8])> {
        self.mounts.iter().find_map(|point| Some((point, path.below(&point.guest)?)))
    }

    /// Opens a file or directory, and creates it if the flags ([`nerite_hypercall::file`]) say so,
    /// with the permission bits of `mode`. Gives a descriptor, 3 or more.
    ///
    /// A file that no mount covers is created as a temporary one, and the directories above it with
    /// it.
    ///
    /// # Errors
    /// Those of `open` on Linux. `EACCES` for pipes, sockets and devices that are not mounted
    /// themselves, `EXDEV` for a link that leads out of its mount.
    pub fn open(&self, path: &[u8], flags: i32, mode: u32) -> Result<i32, i32> {
        let flags = Flags::new(flags)?;
        let path = GuestPath::parse(path)?;
        self.table.has_room()?;
        let open = match self.mount(&path) {
            Some((point, rest)) => {
                let directory = path.must_be_directory();
                match point.open_file(rest, directory, flags, mode, self.reopener.as_ref()) {
                    Err(ENOENT) if !flags.create => self.open_between(&path, flags)?,
                    opened => Open::of_host(opened?, path.as_bytes(), flags),
                }
            }
            None => self.open_unmounted(&path, flags, mode)?,
        };
        self.table.insert(open)
    }

    /// A directory above a mount point that the mount around it does not have.
    fn open_between(&self, path: &GuestPath, flags: Flags) -> Result<Open, i32> {
        let found = self.names().directory(path.as_bytes()).ok_or(ENOENT)?;
        self.open_found(path, &found, flags)
    }

    fn open_unmounted(&self, path: &GuestPath, flags: Flags, mode: u32) -> Result<Open, i32> {
        let found = self.names().get(path.as_bytes(), path.must_be_directory());
        match found {
            Err(ENOENT) if flags.create && path.must_be_directory() => Err(EISDIR),
            Err(ENOENT) if flags.create => {
                // Made without the lock. Another vCPU may be faster.
                // Kept until after the lock, so that it is not closed with it.
                let file = Arc::new(self.temporary.create(mode)?);
                let created = self.names().create(path.as_bytes(), Node::Temporary(file.clone()));
                drop(file);
                match created {
                    Ok(found) => self.open_found(
                        path,
                        &found,
                        Flags { exclusive: false, create: false, ..flags },
                    ),
                    Err(EEXIST) if !flags.exclusive => {
                        let found = self.names().get(path.as_bytes(), false)?;
                        self.open_found(path, &found, flags)
                    }
                    Err(errno) => Err(errno),
                }
            }
            found => self.open_found(path, &found?, flags),
        }
    }

    fn open_found(&self, path: &GuestPath, found: &Found, flags: Flags) -> Result<Open, i32> {
        let inode = found.inode;
        match &found.node {
            _ if flags.exclusive => Err(EEXIST),
            Node::Directory { .. } | Node::MountPoint(_) if flags.changes() || flags.create => {
                Err(EISDIR)
            }
            Node::Directory { .. } | Node::MountPoint(_) => {
                let attributes = found.attributes()?;
                Ok(Open::Directory {
                    path: path.as_bytes().to_vec(),
                    attributes,
                    listing: Listing::default(),
                })
            }
            _ if flags.directory => Err(ENOTDIR),
            Node::Image(_) if flags.changes() => Err(EROFS),
            Node::Image(image) => {
                Ok(Open::Image { inode, image: image.clone(), position: AtomicU64::new(0) })
            }
            Node::Temporary(file) => Ok(Open::Temporary { inode, file: file.open(flags)? }),
        }
    }

    /// Closes a descriptor. Calls that use it at the moment end first.
    ///
    /// # Errors
    /// `EBADF` if it is not open.
    pub fn close(&self, fd: i32) -> Result<(), i32> {
        self.table.remove(fd).map(drop)
    }

    /// Reads into pieces of guest memory, one after the other, each with one system call, until one
    /// is not filled. Gives the number of bytes, 0 at the end.
    ///
    /// # Errors
    /// `EBADF`, `EISDIR`, or what the host says, if nothing was read at all.
    pub fn read<'a>(
        &self,
        fd: i32,
        pieces: impl IntoIterator<Item = VolatileSlice<'a>>,
    ) -> Result<u64, i32> {
        let open = self.table.get(fd)?;
        transfer(&open, pieces, |mut piece| open.read(&mut piece, self.stop()))
    }

    /// Writes pieces of guest memory, one after the other, each with one system call, until one is
    /// not written wholly. Gives the number of bytes.
    ///
    /// # Errors
    /// `EBADF`, `ENOSPC` at a limit, or what the host says, if nothing was written at all.
    pub fn write<'a>(
        &self,
        fd: i32,
        pieces: impl IntoIterator<Item = VolatileSlice<'a>>,
    ) -> Result<u64, i32> {
        let open = self.table.get(fd)?;
        transfer(&open, pieces, |piece| {
            let wanted = piece.len() as u64;
            let granted = self.written.take(wanted);
            let allowed = usize::try_from(granted).unwrap_or(usize::MAX).min(piece.len());
            let result = match piece.subslice(0, allowed) {
                Ok(part) if allowed != 0 || wanted == 0 => open.write(&part, self.stop()),
                _ => Err(ENOSPC),
            };
            let used = *result.as_ref().unwrap_or(&0) as u64;
            self.written.give_back(granted.saturating_sub(used));
            result
        })
    }

    /// Moves the position of a descriptor. Gives the new one. A directory can only be set to its
    /// beginning.
    ///
    /// # Errors
    /// `EBADF`, `ESPIPE`, or `EINVAL` for a position that cannot be.
    pub fn seek(&self, fd: i32, offset: i64, whence: i32) -> Result<u64, i32> {
        self.table.get(fd)?.seek(offset, whence)
    }

    /// Metadata of a path; of a link itself unless `follow` says otherwise.
    ///
    /// # Errors
    /// Those of `stat` on Linux, and `EXDEV` for a link that leads out of its mount.
    pub fn stat(&self, path: &[u8], follow: bool) -> Result<FileAttr, i32> {
        let path = GuestPath::parse(path)?;
        let directory = path.must_be_directory();
        let found = match self.mount(&path) {
            Some((point, rest)) => match point.stat(rest, directory, follow) {
                Ok(stat) => return Ok(attributes::of_host(&stat)),
                Err(ENOENT) => self.names().directory(path.as_bytes()).ok_or(ENOENT),
                Err(errno) => Err(errno),
            },
            None => self.names().get(path.as_bytes(), directory),
        };
        found?.attributes()
    }

    /// Metadata of a descriptor.
    ///
    /// # Errors
    /// `EBADF` if it is not open.
    pub fn fstat(&self, fd: i32) -> Result<FileAttr, i32> {
        self.table.get(fd)?.attributes()
    }

    /// Removes a file.
    ///
    /// # Errors
    /// `EISDIR` for a directory, `EBUSY` for a mount point, `EROFS` where nothing can be changed,
    /// and those of Linux.
    pub fn unlink(&self, path: &[u8]) -> Result<(), i32> {
        let path = GuestPath::parse(path)?;
        let directory = path.must_be_directory();
        match self.mount(&path) {
            Some((point, rest)) => point.unlink(rest, directory),
            // What is removed goes away after the lock.
            None => {
                let removed = self.names().remove(path.as_bytes(), directory);
                removed.map(drop)
            }
        }
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `EEXIST`, `EROFS`, `ENOSPC` at the limit of temporary entries, and those of Linux.
    pub fn make_directory(&self, path: &[u8]) -> Result<(), i32> {
        let path = GuestPath::parse(path)?;
        match self.mount(&path) {
            Some((point, rest)) => point.make_directory(rest, NEW_DIRECTORY_MODE),
            None => {
                let node = Node::Directory { mode: NEW_DIRECTORY_MODE };
                self.names().create(path.as_bytes(), node).map(drop)
            }
        }
    }

    /// The next entries of a directory, as Linux's `getdents64` writes them: at most `limit` bytes
    /// and at most 64 KiB. None at the end.
    ///
    /// # Errors
    /// `EBADF`, `ENOTDIR`, or `EINVAL` if not even one entry has room.
    pub fn read_directory(&self, fd: i32, limit: u64) -> Result<Vec<u8>, i32> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.table.get(fd)?.entries(limit, |path, after| self.names().page(path, after))
    }
}

fn transfer<'a>(
    open: &Open,
    pieces: impl IntoIterator<Item = VolatileSlice<'a>>,
    mut one: impl FnMut(VolatileSlice<'a>) -> Result<usize, i32>,
) -> Result<u64, i32> {
    let mut done = 0_u64;
    for piece in pieces {
        let wanted = piece.len();
        match one(piece) {
            Ok(length) => {
                done = done.saturating_add(length as u64);
                // A pipe that gave something may have nothing more, and would be waited for.
                if length < wanted || open.is_stream() {
                    break;
                }
            }
            // What was transferred before counts; the error comes again with the next call.
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

fn add_image_file(names: &mut Names, file: &ImageFile) -> Result<(), Error> {
    let bad = |reason| Error::ImageFile {
        name: String::from_utf8_lossy(&file.path).into_owned(),
        reason,
    };
    let path = GuestPath::parse(&file.path)
        .map_err(|_| bad("it is empty, too long or has a zero byte"))?;
    if path.as_bytes().is_empty() || path.must_be_directory() {
        return Err(bad("it names a directory"));
    }
    names.add_fixed(path.as_bytes(), Node::Image(Arc::new(Image::new(file)))).map_err(bad)
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
