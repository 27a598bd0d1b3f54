//! Bytes between files and guest memory, without a copy in between: one system call for each
//! contiguous piece.

use std::os::fd::{AsFd, BorrowedFd};

use nerite_hypercall::errno::{EFAULT, EINTR, EIO};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};

use crate::errno::to_guest;

/// The guest's number for what a transfer failed with.
pub(crate) fn guest_error(error: VolatileMemoryError) -> i32 {
    match error {
        VolatileMemoryError::IOError(error) => {
            error.raw_os_error().map_or(EIO, |number| to_guest(Errno::from_raw_os_error(number)))
        }
        _ => EFAULT,
    }
}

/// Reads once; again only after a signal.
pub(crate) fn read(file: BorrowedFd<'_>, slice: &mut VolatileSlice<'_>) -> Result<usize, i32> {
    repeat(|| (&file).read_volatile(slice).map_err(guest_error))
}

/// Writes once; again only after a signal.
pub(crate) fn write(file: BorrowedFd<'_>, slice: &VolatileSlice<'_>) -> Result<usize, i32> {
    repeat(|| (&file).write_volatile(slice).map_err(guest_error))
}

fn repeat(mut transfer: impl FnMut() -> Result<usize, i32>) -> Result<usize, i32> {
    loop {
        match transfer() {
            Err(EINTR) => {}
            result => return result,
        }
    }
}

/// Waits until a pipe or device is ready. `EINTR` if `stop` became readable before.
pub(crate) fn wait(
    file: BorrowedFd<'_>,
    writing: bool,
    stop: Option<BorrowedFd<'_>>,
) -> Result<(), i32> {
    let events = if writing { PollFlags::OUT } else { PollFlags::IN };
    let mut both = [
        PollFd::from_borrowed_fd(stop.unwrap_or(file), PollFlags::IN),
        PollFd::from_borrowed_fd(file, events),
    ];
    let used = if stop.is_some() { both.as_mut_slice() } else { both.split_at_mut(1).1 };
    loop {
        match poll(used, None) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(to_guest(error)),
        }
    }
    let stopped = stop.is_some() && used.first().is_some_and(|stop| !stop.revents().is_empty());
    if stopped { Err(EINTR) } else { Ok(()) }
}

/// Transfers with a pipe or device that does not block, waiting in between.
pub(crate) fn patiently(
    file: impl AsFd,
    writing: bool,
    stop: Option<BorrowedFd<'_>>,
    mut transfer: impl FnMut(BorrowedFd<'_>) -> Result<usize, i32>,
) -> Result<usize, i32> {
    loop {
        match transfer(file.as_fd()) {
            Err(nerite_hypercall::errno::EAGAIN) => wait(file.as_fd(), writing, stop)?,
            result => return result,
        }
    }
}
