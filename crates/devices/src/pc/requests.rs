//! Requests of devices that concern the whole machine.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// By which way the guest asked for a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetKind {
    /// Through the reset register, as a kernel reboots.
    Register,
    /// Through the keyboard controller, as kernels do that know no better way.
    Keyboard,
}

impl fmt::Display for ResetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Register => "a reboot",
            Self::Keyboard => "a reset through the keyboard controller",
        })
    }
}

/// A request of a device.
#[derive(Debug)]
pub enum Request {
    /// The guest powers itself off.
    PowerOff,
    /// The guest resets itself.
    Reset(ResetKind),
    /// The guest says that it has crashed.
    Panicked,
    /// The guest ends with this code.
    Exit(u8),
    /// The host failed at something the guest relies on.
    Failed(io::Error),
}

/// Requests of the devices of a machine; the first one counts.
#[derive(Debug, Default)]
pub struct Requests {
    pending: AtomicBool,
    request: Mutex<Option<Request>>,
}

impl Requests {
    /// Makes a request, unless there is one.
    pub fn raise(&self, request: Request) {
        let mut current = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_none() {
            *current = Some(request);
            self.pending.store(true, Ordering::Release);
        }
    }

    /// Takes the request, if there is one. Costs a load if there is none.
    pub fn take(&self) -> Option<Request> {
        if !self.pending.load(Ordering::Acquire) {
            return None;
        }
        self.request.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_counts_and_is_taken_once() {
        let requests = Requests::default();
        assert!(requests.take().is_none());
        requests.raise(Request::Exit(3));
        requests.raise(Request::PowerOff);
        assert!(matches!(requests.take(), Some(Request::Exit(3))));
        assert!(requests.take().is_none());
    }
}
