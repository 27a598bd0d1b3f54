//! Ending a step from another thread.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A hypervisor's way to kick a vCPU.
pub trait Kick: Send + Sync {
    /// Makes the running step, or else the next one, end with [`crate::Exit::Kicked`].
    ///
    /// Never blocks on the guest. Kicks that arrive before the vCPU has seen the first one count as
    /// one.
    fn kick(&self);
}

/// A handle by which any thread ends the running (or else the next) step of a vCPU.
#[derive(Clone)]
pub struct Kicker(Arc<dyn Kick>);

impl Kicker {
    /// Wraps a hypervisor's implementation.
    pub fn new(kick: Arc<dyn Kick>) -> Self {
        Self(kick)
    }

    /// Makes the running step, or else the next one, end with [`crate::Exit::Kicked`].
    ///
    /// Does nothing if the vCPU is gone.
    pub fn kick(&self) {
        self.0.kick();
    }
}

impl fmt::Debug for Kicker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kicker")
    }
}

/// A timer that kicks a vCPU until it is dropped.
pub trait KickTimer: fmt::Debug + Send + Sync {
    /// Kicks after `first` from now, and from then on every `interval`; only once if that is zero.
    ///
    /// May be called by a signal handler (signal-safety(7)).
    ///
    /// # Errors
    /// Fails if the host refuses.
    fn set(&self, first: Duration, interval: Duration) -> io::Result<()>;

    /// Switches the timer off until it is set again. May be called by a signal handler.
    ///
    /// # Errors
    /// Fails if the host refuses.
    fn stop(&self) -> io::Result<()>;
}
