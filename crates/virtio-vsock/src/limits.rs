//! Limits and counters.

use std::time::Duration;

/// Limits of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of connections at a time, of both sides together. More clients wait; the
    /// guest is refused.
    pub connections: usize,
    /// Time for a client's line and the guest's answer to it together, and for the guest's answer
    /// when a client has gone.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1024, patience: Duration::from_secs(8) }
    }
}

/// Connections and bytes of a device so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Connections of clients that the guest has accepted.
    pub from_host: u64,
    /// Connections of the guest to a socket of the host.
    pub from_guest: u64,
    /// Resets for the guest: connections that were refused or broken off, and packets of none.
    pub resets: u64,
    /// Bytes that the guest has got.
    pub to_guest_bytes: u64,
    /// Bytes that the guest has sent.
    pub to_host_bytes: u64,
}
