//! Saved state of a device.

use nerite_saved::{RestoreError, check_version, refuse};
use serde::{Deserialize, Serialize};

use crate::table::FIRST_PORT;

/// Version of [`VsockState`].
pub(crate) const VERSION: u32 = 1;
const PART: &str = "vsock device";

/// Saved state of a [`crate::Vsock`]. Connections are not part of it: a restored guest hears that
/// they are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockState {
    /// Version of this layout: 1.
    pub version: u32,
    /// Port of the host's end of the next connection of a client: not one that the guest may take
    /// for a connection of before.
    pub next_port: u32,
}

impl VsockState {
    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        check_version(PART, self.version, VERSION)?;
        refuse(PART, "port", self.next_port < FIRST_PORT || self.next_port == u32::MAX)
    }
}
