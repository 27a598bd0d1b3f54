//! An eventfd: how a device, its thread and the hypervisor wake each other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// A counter in the kernel that is signalled and taken, never waited for in here.
///
/// Hypervisors can signal one when the guest writes an address, and raise an interrupt when one is signalled.
#[derive(Debug)]
pub struct Event {
    fd: OwnedFd,
}

impl Event {
    /// An event that is not signalled.
    ///
    /// # Errors
    /// If the process or the host has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Signals it. That it is signalled already is as good.
    pub fn signal(&self) {
        // The only error an open eventfd has is a full counter: it is signalled then.
        let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
    }

    /// Takes the signal away. Returns whether there was one.
    pub fn take(&self) -> bool {
        rustix::io::read(&self.fd, &mut [0_u8; 8]).is_ok()
    }

    /// Whether it is signalled; the signal stays.
    pub fn is_signalled(&self) -> bool {
        let mut polled = [PollFd::from_borrowed_fd(self.fd.as_fd(), PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_add_up_to_one_and_stay_until_taken() {
        let event = Event::new().unwrap();
        assert!(!event.is_signalled());
        assert!(!event.take());
        event.signal();
        event.signal();
        assert!(event.is_signalled());
        assert!(event.is_signalled());
        assert!(event.take());
        assert!(!event.take());
    }
}
