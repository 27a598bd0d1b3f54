#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod sources;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::RwLock;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

pub use sources::{Ready, Sources};

/// A function that takes the place of an event's file descriptor.
pub type Call = Arc<dyn Fn() + Send + Sync>;

/// An interrupt or doorbell: an eventfd, or a call while one is connected.
///
/// Clones are handles to the same event.
#[derive(Clone)]
pub struct Event(Arc<Inner>);

struct Inner {
    fd: OwnedFd,
    call: RwLock<Option<Call>>,
}

impl Event {
    /// Creates an event that is not signalled.
    ///
    /// # Errors
    /// Fails if the process or the host has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { fd, call: RwLock::new(None) })))
    }

    /// Calls the connected function; without one, signals the file descriptor. Signals of the
    /// descriptor that are not taken yet count as one.
    pub fn signal(&self) {
        // Called without the lock: the function may take locks under which it is disconnected.
        let call = self.0.call.read().clone();
        match call {
            Some(call) => call(),
            None => self.write(),
        }
    }

    fn write(&self) {
        // The only error of an open eventfd is a full counter: it is signalled then.
        let _ = rustix::io::write(&self.0.fd, &1_u64.to_ne_bytes());
    }

    /// Connects `call`: each signal from now on calls it instead of signalling the descriptor. A
    /// signal that is pending in the descriptor is delivered at once.
    ///
    /// Signals that the kernel sends to the descriptor itself (vhost) do not reach the function.
    pub fn connect(&self, call: Call) {
        *self.0.call.write() = Some(call.clone());
        if self.take() {
            call();
        }
    }

    /// Disconnects the function: signals stay in the descriptor. A call that has begun on another
    /// thread may still be running.
    pub fn disconnect(&self) {
        *self.0.call.write() = None;
    }

    /// Takes the signal of the descriptor away. Returns `true` if there was one.
    pub fn take(&self) -> bool {
        rustix::io::read(&self.0.fd, &mut [0_u8; 8]).is_ok()
    }

    /// Returns `true` if the descriptor is signalled; the signal stays.
    pub fn is_signalled(&self) -> bool {
        let mut polled = [PollFd::from_borrowed_fd(self.0.fd.as_fd(), PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("fd", &self.0.fd).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn signals_add_up_to_one_until_taken() {
        let event = Event::new().unwrap();
        assert!(!event.is_signalled());
        assert!(!event.take());
        event.signal();
        let handle = event.clone();
        handle.signal();
        assert!(event.is_signalled());
        assert!(event.is_signalled());
        assert!(event.take());
        assert!(!event.take());
    }

    #[test]
    fn a_connected_call_takes_every_signal() {
        let event = Event::new().unwrap();
        let calls = Arc::new(AtomicU32::new(0));
        let counter = calls.clone();
        event.signal();
        event.connect(Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!(calls.load(Ordering::Relaxed), 1, "the pending signal");
        event.signal();
        event.signal();
        assert_eq!(calls.load(Ordering::Relaxed), 3);
        assert!(!event.is_signalled());
        event.disconnect();
        event.signal();
        assert_eq!(calls.load(Ordering::Relaxed), 3);
        assert!(event.is_signalled());
    }
}
