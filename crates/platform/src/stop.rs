//! The end of a machine, as everything that waits sees it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// A request to end the machine: a flag, and a descriptor that becomes readable with it. Clones are
/// handles to the same request.
#[derive(Debug, Clone)]
pub struct StopToken {
    requested: Arc<AtomicBool>,
    event: Arc<OwnedFd>,
}

impl StopToken {
    /// Creates a token that is not requested.
    ///
    /// # Errors
    /// Fails if the process or the host has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        Ok(Self { requested: Arc::default(), event })
    }

    /// Requests the end. It stays requested.
    pub fn request(&self) {
        if !self.requested.swap(true, Ordering::AcqRel)
            // An eventfd refuses only when its counter is full, and this adds 1 once.
            && let Err(error) = rustix::io::write(&*self.event, &1_u64.to_ne_bytes())
        {
            log::error!("signalling the end of the machine: {error}");
        }
    }

    /// Returns `true` if the end is requested.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Descriptor that is readable once the end is requested.
    pub fn event(&self) -> &Arc<OwnedFd> {
        &self.event
    }
}

impl AsFd for StopToken {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn a_request_stays_and_is_readable() {
        let stop = StopToken::new().unwrap();
        let readable = |stop: &StopToken| {
            let mut polled = [PollFd::new(stop, PollFlags::IN)];
            poll(&mut polled, Some(&Timespec::default())).unwrap() > 0
        };
        assert!(!stop.is_requested() && !readable(&stop));
        let other = stop.clone();
        other.request();
        other.request();
        assert!(stop.is_requested() && readable(&stop) && readable(&other));
    }
}
