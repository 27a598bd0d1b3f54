//! Ending a step from another thread.

use std::fmt;
use std::sync::Arc;

/// What an engine implements so that its vCPU can be kicked.
pub trait Kick: Send + Sync {
    /// Makes the running step, or else the next one, end with [`crate::Exit::Kicked`].
    ///
    /// Never blocks on the guest. Kicks that arrive before the vCPU has seen the first one count as one.
    fn kick(&self);
}

/// A handle by which any thread ends the running (or else the next) step of a vCPU.
#[derive(Clone)]
pub struct Kicker(Arc<dyn Kick>);

impl Kicker {
    /// Wraps an engine's implementation.
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
