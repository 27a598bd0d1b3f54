//! The file calls, the same for both interface versions. Descriptors 0 to 2 are the standard
//! streams.

use nerite_hypercall::errno::{EFAULT, EINTR, EINVAL, ENAMETOOLONG, ENOTDIR, ESPIPE};
use nerite_hypercall::v2::{FileAttr, STAT_FOLLOW, STAT_NO_FOLLOW};
use nerite_hypercall::{STDERR, STDIN, STDOUT};
use nerite_memory::CStrError;

use super::buffers::{Buffer, Scratch};
use super::streams::Answer;
use super::{Hypercalls, Next};

/// A character device that all may read and write (POSIX `<sys/stat.h>`).
const STREAM_MODE: u32 = 0o020_666;

const fn is_standard(fd: i32) -> bool {
    matches!(fd, STDIN | STDOUT | STDERR)
}

impl Hypercalls {
    pub(super) fn file_write(&self, fd: i32, buffer: Buffer, scratch: &mut Scratch) -> Answer<u64> {
        match fd {
            STDOUT | STDERR => self.write_console(buffer, scratch),
            _ => self.transferred(
                buffer
                    .check(&self.ram)
                    .and_then(|()| self.files.write(fd, buffer.pieces(&self.ram))),
            ),
        }
    }

    pub(super) fn file_read(&self, fd: i32, buffer: Buffer, scratch: &mut Scratch) -> Answer<u64> {
        match fd {
            STDIN => self.read_console(buffer, scratch),
            _ => {
                let read = buffer.check(&self.ram).and_then(|()| {
                    let read = self.files.read(fd, buffer.pieces(&self.ram));
                    // A read that fails may have begun.
                    buffer.written(&self.ram, read.unwrap_or(buffer.length()));
                    read
                });
                self.transferred(read)
            }
        }
    }

    /// A transfer that waited ends when the machine does.
    fn transferred(&self, result: Result<u64, i32>) -> Answer<u64> {
        match result {
            Err(EINTR) if self.is_stopping() => Err(Next::Stopped),
            result => Ok(result),
        }
    }

    pub(super) fn file_open(&self, path: u64, flags: i32, mode: i32) -> Result<i32, i32> {
        self.files.open(&self.path(path)?, flags, mode.cast_unsigned())
    }

    pub(super) fn file_close(&self, fd: i32) -> Result<i32, i32> {
        // The streams are the machine's, and stay open for its other threads.
        if is_standard(fd) { Ok(0) } else { self.files.close(fd).map(|()| 0) }
    }

    pub(super) fn file_seek(&self, fd: i32, offset: i64, whence: i32) -> Result<i64, i32> {
        if is_standard(fd) {
            return Err(ESPIPE);
        }
        let position = self.files.seek(fd, offset, whence)?;
        i64::try_from(position).map_err(|_| EINVAL)
    }

    pub(super) fn file_unlink(&self, path: u64) -> Result<i32, i32> {
        self.files.unlink(&self.path(path)?).map(|()| 0)
    }

    pub(super) fn make_directory(&self, path: u64) -> Result<(), i32> {
        self.files.make_directory(&self.path(path)?)
    }

    pub(super) fn file_stat(&self, path: u64, kind: u32) -> Result<FileAttr, i32> {
        let follow = match kind {
            STAT_FOLLOW => true,
            STAT_NO_FOLLOW => false,
            _ => return Err(EINVAL),
        };
        self.files.stat(&self.path(path)?, follow)
    }

    pub(super) fn descriptor_stat(&self, fd: i32) -> Result<FileAttr, i32> {
        if !is_standard(fd) {
            return self.files.fstat(fd);
        }
        // What the host's streams are is none of the guest's business.
        Ok(FileAttr { st_mode: STREAM_MODE, st_nlink: 1, st_blksize: 4096, ..FileAttr::default() })
    }

    /// Writes the next directory entries to the buffer, which must be in RAM wholly. Gives their
    /// size, 0 at the end.
    pub(super) fn directory_entries(&self, fd: i32, buffer: Buffer) -> Result<u64, i32> {
        if is_standard(fd) {
            return Err(ENOTDIR);
        }
        // Entries that were taken and cannot be delivered would be lost.
        self.files.fstat(fd)?;
        buffer.check(&self.ram)?;
        let entries = self.files.read_directory(fd, buffer.length())?;
        buffer.write(&self.ram, &entries).map(|()| entries.len() as u64)
    }

    fn path(&self, address: u64) -> Result<Vec<u8>, i32> {
        self.ram.read_cstr(address, nerite_hostfs::PATH_MAX).map_err(|error| match error {
            CStrError::TooLong { .. } => ENAMETOOLONG,
            _ => EFAULT,
        })
    }
}
