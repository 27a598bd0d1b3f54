//! Files and directories behind a guest's descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use nerite_hypercall::errno::{EBADF, EINVAL, EIO, EISDIR, ENOTDIR};
use nerite_hypercall::file::{SEEK_CUR, SEEK_END, SEEK_SET};
use nerite_hypercall::v2::FileAttr;
use rustix::fs::SeekFrom;
use vm_memory::VolatileSlice;

use crate::attributes;
use crate::directory::{Entry, HostListing, Listing};
use crate::errno::to_guest;
use crate::flags::Flags;
use crate::host::Opened;
use crate::image::Image;
use crate::temporary::OpenTemp;
use crate::transfer::{patiently, read, write};

/// An open file or directory. Shared by the vCPUs that use it at the moment; closed with the last
/// of them.
#[derive(Debug)]
pub(crate) enum Open {
    Regular {
        file: OwnedFd,
        origin: Origin,
    },
    Special {
        file: OwnedFd,
        origin: Origin,
    },
    HostDirectory {
        directory: OwnedFd,
        listing: HostListing,
        origin: Origin,
    },
    Temporary {
        inode: u64,
        file: OpenTemp,
    },
    Image {
        inode: u64,
        image: Arc<Image>,
        position: AtomicU64,
    },
    Directory {
        path: Vec<u8>,
        attributes: FileAttr,
        listing: Listing,
    },
    /// A file that was not found again when the guest was restored.
    Lost,
}

/// Path and flags that the guest has opened a file of the host with.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The guest's path, with a slash before each name.
    pub(crate) path: Box<[u8]>,
    pub(crate) flags: Flags,
}

fn target(offset: i64, whence: i32) -> Result<SeekFrom, i32> {
    match whence {
        SEEK_SET => u64::try_from(offset).map(SeekFrom::Start).map_err(|_| EINVAL),
        SEEK_CUR => Ok(SeekFrom::Current(offset)),
        SEEK_END => Ok(SeekFrom::End(offset)),
        _ => Err(EINVAL),
    }
}

impl Open {
    /// A file or directory of the host that was opened at a guest's path.
    pub(crate) fn of_host(opened: Opened, path: &[u8], flags: Flags) -> Self {
        let origin = Origin { path: path.into(), flags };
        match opened {
            Opened::Regular(file) => Self::Regular { file, origin },
            Opened::Special(file) => Self::Special { file, origin },
            Opened::Directory(directory) => {
                Self::HostDirectory { directory, listing: HostListing::default(), origin }
            }
        }
    }

    /// Reads once into a piece of guest memory. `EINTR` if `stop` became readable while waiting.
    pub(crate) fn read(
        &self,
        slice: &mut VolatileSlice<'_>,
        stop: Option<BorrowedFd<'_>>,
    ) -> Result<usize, i32> {
        match self {
            Self::Regular { file, .. } => read(file.as_fd(), slice),
            Self::Special { file, .. } => patiently(file, false, stop, |file| read(file, slice)),
            Self::Temporary { file, .. } => file.read(slice),
            Self::Image { image, position, .. } => image.read(position, slice),
            Self::HostDirectory { .. } | Self::Directory { .. } => Err(EISDIR),
            Self::Lost => Err(EIO),
        }
    }

    /// Writes once from a piece of guest memory.
    pub(crate) fn write(
        &self,
        slice: &VolatileSlice<'_>,
        stop: Option<BorrowedFd<'_>>,
    ) -> Result<usize, i32> {
        match self {
            Self::Regular { file, .. } => write(file.as_fd(), slice),
            Self::Special { file, .. } => patiently(file, true, stop, |file| write(file, slice)),
            Self::Temporary { file, .. } => file.write(slice),
            Self::Image { .. } | Self::HostDirectory { .. } | Self::Directory { .. } => Err(EBADF),
            Self::Lost => Err(EIO),
        }
    }

    /// Returns `true` if a transfer may end early although more is to come.
    pub(crate) const fn is_stream(&self) -> bool {
        matches!(self, Self::Special { .. })
    }

    pub(crate) fn seek(&self, offset: i64, whence: i32) -> Result<u64, i32> {
        let target = target(offset, whence)?;
        match self {
            Self::Regular { file, .. } | Self::Special { file, .. } => {
                rustix::fs::seek(file, target).map_err(to_guest)
            }
            Self::Temporary { file, .. } => file.seek(target),
            Self::Image { image, position, .. } => image.seek(position, offset, whence),
            // Of directories only the beginning is a place that means the same to all.
            Self::HostDirectory { directory, listing, .. } if target == SeekFrom::Start(0) => {
                listing.restart(directory).map(|()| 0)
            }
            Self::Directory { listing, .. } if target == SeekFrom::Start(0) => {
                listing.restart();
                Ok(0)
            }
            Self::HostDirectory { .. } | Self::Directory { .. } => Err(EINVAL),
            Self::Lost => Err(EIO),
        }
    }

    pub(crate) fn attributes(&self) -> Result<FileAttr, i32> {
        match self {
            Self::Regular { file, .. }
            | Self::Special { file, .. }
            | Self::HostDirectory { directory: file, .. } => {
                rustix::fs::fstat(file).map(|stat| attributes::of_host(&stat)).map_err(to_guest)
            }
            Self::Temporary { inode, file } => file.attributes(*inode),
            Self::Image { inode, image, .. } => Ok(image.attributes(*inode)),
            Self::Directory { attributes, .. } => Ok(*attributes),
            Self::Lost => Err(EIO),
        }
    }

    /// The next directory entries, at most `limit` bytes. `page` gives those of a directory in
    /// memory after a name.
    pub(crate) fn entries(
        &self,
        limit: usize,
        page: impl FnOnce(&[u8], Option<&[u8]>) -> Vec<Entry>,
    ) -> Result<Vec<u8>, i32> {
        match self {
            Self::HostDirectory { directory, listing, .. } => listing.next(directory, limit),
            Self::Directory { path, listing, .. } => listing.next(limit, |after| page(path, after)),
            Self::Lost => Err(EIO),
            _ => Err(ENOTDIR),
        }
    }
}
