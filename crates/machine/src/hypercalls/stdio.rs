//! The file calls on the standard streams, the same for both interface versions.
//!
//! No host file is visible to the guest: paths do not exist, and what is not a standard stream is no descriptor.

use nerite_hypercall::errno::{EBADF, EFAULT, EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOTDIR, EROFS, ESPIPE};
use nerite_hypercall::file::{O_CREAT, O_DIRECTORY};
use nerite_hypercall::v2::FileAttr;
use nerite_hypercall::{STDERR, STDIN, STDOUT};
use nerite_memory::CStrError;

use super::buffers::{Buffer, Scratch};
use super::{Hypercalls, Next};

/// The longest path in bytes (Linux `PATH_MAX` without its zero byte).
const PATH_MAX: usize = 4095;
/// A character device that all may read and write (POSIX `<sys/stat.h>`).
const STREAM_MODE: u32 = 0o020_666;

/// What a call gives: a result or an error number for the guest, or the reason to end.
pub(super) type Answer<T> = Result<Result<T, i32>, Next>;

const fn is_standard(fd: i32) -> bool {
    matches!(fd, STDIN | STDOUT | STDERR)
}

impl Hypercalls {
    /// Writes a buffer to the console, piece by piece. Nothing of a buffer that is not all in RAM is written.
    pub(super) fn write_console(&self, buffer: Buffer, scratch: &mut Scratch) -> Answer<u64> {
        if let Err(errno) = buffer.check(&self.ram) {
            return Ok(Err(errno));
        }
        let mut done = 0_u64;
        while done < buffer.length() {
            let chunk = scratch.first(buffer.length().saturating_sub(done));
            let length = match buffer.read(&self.ram, done, chunk) {
                // Page tables can change between check and copy.
                Ok(0) => return Ok(Err(EFAULT)),
                Ok(length) => length,
                Err(errno) => return Ok(Err(errno)),
            };
            match self.after_write(self.console.write(chunk.get(..length).unwrap_or_default())) {
                Next::Resume => done = done.saturating_add(length as u64),
                next => return Err(next),
            }
        }
        Ok(Ok(done))
    }

    /// Reads from the console into a buffer, waiting for at least one byte.
    pub(super) fn read_console(&self, buffer: Buffer, scratch: &mut Scratch) -> Answer<u64> {
        if buffer.length() == 0 {
            return Ok(Ok(0));
        }
        // Before input is taken from the host: it must not get lost.
        if let Err(errno) = buffer.check(&self.ram) {
            return Ok(Err(errno));
        }
        let chunk = scratch.first(buffer.length());
        let length = match self.read_input(chunk) {
            Ok(length) => length,
            Err(None) => return Err(Next::Stopped),
            Err(Some(error)) => {
                self.budget.guest_error(format_args!("reading standard input: {error}"));
                return Ok(Err(EIO));
            }
        };
        Ok(buffer.write(&self.ram, chunk.get(..length).unwrap_or_default()).map(|()| length as u64))
    }

    pub(super) fn file_write(&self, fd: i32, buffer: Buffer, scratch: &mut Scratch) -> Answer<u64> {
        match fd {
            STDOUT | STDERR => self.write_console(buffer, scratch),
            _ => Ok(Err(EBADF)),
        }
    }

    pub(super) fn file_read(&self, fd: i32, buffer: Buffer, scratch: &mut Scratch) -> Answer<u64> {
        match fd {
            STDIN => self.read_console(buffer, scratch),
            _ => Ok(Err(EBADF)),
        }
    }

    pub(super) fn file_open(&self, path: u64, flags: i32) -> Result<i32, i32> {
        self.path(path)?;
        match flags {
            flags if flags & O_CREAT != 0 && flags & O_DIRECTORY != 0 => Err(EINVAL),
            flags if flags & O_CREAT != 0 => Err(EROFS),
            _ => Err(ENOENT),
        }
    }

    pub(super) fn file_close(fd: i32) -> Result<i32, i32> {
        // The streams are the machine's, and stay open for its other threads.
        if is_standard(fd) { Ok(0) } else { Err(EBADF) }
    }

    pub(super) fn file_seek(fd: i32) -> Result<i64, i32> {
        Err(if is_standard(fd) { ESPIPE } else { EBADF })
    }

    pub(super) fn file_unlink(&self, path: u64) -> Result<i32, i32> {
        self.path(path)?;
        Err(ENOENT)
    }

    pub(super) fn make_directory(&self, path: u64) -> Result<(), i32> {
        self.path(path)?;
        Err(EROFS)
    }

    pub(super) fn file_stat(&self, path: u64) -> Result<FileAttr, i32> {
        self.path(path)?;
        Err(ENOENT)
    }

    pub(super) fn descriptor_stat(fd: i32) -> Result<FileAttr, i32> {
        if !is_standard(fd) {
            return Err(EBADF);
        }
        Ok(FileAttr { st_mode: STREAM_MODE, st_nlink: 1, st_blksize: 4096, ..FileAttr::default() })
    }

    pub(super) fn directory_entries(fd: i32) -> Result<u64, i32> {
        Err(if is_standard(fd) { ENOTDIR } else { EBADF })
    }

    fn path(&self, address: u64) -> Result<Vec<u8>, i32> {
        self.ram.read_cstr(address, PATH_MAX).map_err(|error| match error {
            CStrError::TooLong { .. } => ENAMETOOLONG,
            _ => EFAULT,
        })
    }
}
