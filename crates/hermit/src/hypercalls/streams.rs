//! The console as a stream of bytes, the same for both interface versions.

use nerite_hypercall::errno::{EFAULT, EIO};

use super::buffers::{Buffer, Scratch};
use super::{Hypercalls, Next};

/// Result of a call: a value or an error number for the guest, or the reason to end.
pub(super) type Answer<T> = Result<Result<T, i32>, Next>;

impl Hypercalls {
    /// Writes a buffer to the console, piece by piece. Nothing of a buffer that is not all in RAM
    /// is written.
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
            self.throttle(length)?;
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
            Err(Next::Host(error)) => {
                self.budget.guest_error(format_args!("reading standard input: {error}"));
                return Ok(Err(EIO));
            }
            Err(next) => return Err(next),
        };
        Ok(buffer.write(&self.ram, chunk.get(..length).unwrap_or_default()).map(|()| length as u64))
    }
}
