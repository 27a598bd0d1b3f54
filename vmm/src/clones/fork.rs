//! Processes that are forked.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal};

/// A child process, which is ended and waited for when this is dropped.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    /// Readable when it has ended.
    descriptor: OwnedFd,
    is_reaped: bool,
}

/// Forks a process that calls `body` and ends with the code that it returns.
///
/// The caller has one thread. `body` owns nothing of what the caller has: descriptors that it
/// closes stay open in the caller.
///
/// # Errors
/// Fails if the host has no room for another process.
pub(super) fn fork(body: impl FnOnce() -> u8) -> io::Result<Child> {
    // SAFETY: the process has one thread, as the server of clones starts none. So no lock is held
    // by a thread that the child lacks, and the child may do what the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = body();
            // SAFETY: it ends the process. Destructors and exit handlers are the parent's.
            unsafe { libc::_exit(code.into()) }
        }
        pid => {
            let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
            // It cannot fail for lack of the process, which is not reaped yet.
            let descriptor = pidfd_open(pid, PidfdFlags::empty())?;
            Ok(Child { pid, descriptor, is_reaped: false })
        }
    }
}

/// Gives memory that is free back to the host: of the heap, and of the main thread's stack, which
/// calls this, below what is in use.
pub(super) fn trim() {
    /// Room for what is in use of the stack below a local variable here. A handler of a signal is
    /// over before the call is made.
    const IN_USE: usize = 8 << 10;
    /// Part that is given back at most: less than the gap of 1 MiB that Linux keeps free below a
    /// main thread's stack, so that nothing else is in it.
    const MOST: usize = 512 << 10;
    const PAGE: usize = 4096;
    // SAFETY: it only works on the C library's own free memory, under its locks.
    unsafe { libc::malloc_trim(0) };
    let local = 0_u8;
    let end = (&raw const local).addr().saturating_sub(IN_USE) & !(PAGE - 1);
    let start = end.saturating_sub(MOST) as *mut libc::c_void;
    // SAFETY: the range is below all that is in use of this thread's stack, and holds nothing but
    // dead frames and unmapped addresses, at which the call ends with an error.
    unsafe { libc::madvise(start, MOST, libc::MADV_DONTNEED) };
}

impl Child {
    /// Number of the process.
    pub(super) fn number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Descriptor that is readable when the process has ended.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.descriptor, signal) {
            log::debug!("process {}: {error}", self.number());
        }
    }

    /// Waits for its end: the exit code, or that for a signal.
    pub(super) fn wait(&mut self) -> u8 {
        let waited = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
        self.is_reaped = true;
        match waited {
            Ok(Some((_, status))) => {
                let signal = status.terminating_signal().map(crate::exit_code::from_signal);
                let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
                signal.or(code).unwrap_or(u8::MAX)
            }
            _ => u8::MAX,
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.signal(Signal::KILL);
            self.wait();
        }
    }
}
