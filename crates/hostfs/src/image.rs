//! Files of a Hermit image, served from the memory the image is in.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nerite_hypercall::errno::{EINVAL, EIO, EOVERFLOW};
use nerite_hypercall::file::{SEEK_CUR, SEEK_END, SEEK_SET};
use nerite_hypercall::v2::FileAttr;
use vm_memory::VolatileSlice;

use crate::attributes;

/// Bytes with another owner, such as a part of an unpacked image.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// An immutable file that the guest can read.
#[derive(Clone)]
pub struct ImageFile {
    /// The guest's path. Without a slash at its beginning it starts at the root.
    pub path: Vec<u8>,
    /// The contents.
    pub data: SharedBytes,
    /// Permission bits.
    pub mode: u32,
}

impl fmt::Debug for ImageFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, data, mode } = self;
        f.debug_struct("ImageFile")
            .field("path", &String::from_utf8_lossy(path))
            .field("size", &(**data).as_ref().len())
            .field("mode", &format_args!("{mode:o}"))
            .finish()
    }
}

/// The contents and mode of an image file.
pub(crate) struct Image {
    data: SharedBytes,
    pub(crate) mode: u32,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} bytes)", self.bytes().len())
    }
}

impl Image {
    pub(crate) fn new(file: &ImageFile) -> Self {
        // It is not writable, whatever the archive says.
        Self { data: file.data.clone(), mode: file.mode & 0o555 }
    }

    fn bytes(&self) -> &[u8] {
        (*self.data).as_ref()
    }

    pub(crate) fn attributes(&self, inode: u64) -> FileAttr {
        attributes::of_file(inode, self.mode, self.bytes().len() as u64)
    }

    /// Copies from `position` on, and moves it by what was copied.
    ///
    /// Two readers of one position at the same time get different bytes.
    pub(crate) fn read(
        &self,
        position: &AtomicU64,
        slice: &VolatileSlice<'_>,
    ) -> Result<usize, i32> {
        let bytes = self.bytes();
        let size = bytes.len() as u64;
        let end = |start: u64| start.max(start.saturating_add(slice.len() as u64).min(size));
        let start = position
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |start| Some(end(start)))
            .map_err(|_| EIO)?;
        let range = usize::try_from(start).ok().zip(usize::try_from(end(start)).ok());
        let part = range.and_then(|(start, end)| bytes.get(start..end)).unwrap_or_default();
        slice.copy_from(part);
        Ok(part.len())
    }

    /// Moves a position. It may be beyond the end.
    pub(crate) fn seek(&self, position: &AtomicU64, offset: i64, whence: i32) -> Result<u64, i32> {
        let size = self.bytes().len() as u64;
        let moved = |old: u64| {
            let base = match whence {
                SEEK_SET => 0,
                SEEK_CUR => old,
                SEEK_END => size,
                _ => return Err(EINVAL),
            };
            let new = base.checked_add_signed(offset);
            let overflow = if offset < 0 { EINVAL } else { EOVERFLOW };
            new.filter(|new| i64::try_from(*new).is_ok()).ok_or(overflow)
        };
        let mut old = position.load(Ordering::Acquire);
        loop {
            let new = moved(old)?;
            match position.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(new),
                Err(now) => old = now,
            }
        }
    }
}
