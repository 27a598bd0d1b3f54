//! Saved states.

use serde::{Deserialize, Serialize};

/// State of a [`ConfigSpace`](crate::ConfigSpace).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigSpaceState {
    /// All 256 bytes: command, base addresses, interrupt line, capabilities.
    #[serde(with = "nerite_saved::bytes")]
    pub registers: Vec<u8>,
}

/// State of an [`Msix`](crate::Msix) table. Message control is in the configuration space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MsixState {
    /// Entries by vector.
    pub entries: Vec<MsixEntryState>,
    /// Vectors whose message is still to be sent, in ascending order.
    pub pending: Vec<u16>,
}

/// Entry of an MSI-X table (PCI 3.0, 6.8.2.6 to 6.8.2.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MsixEntryState {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// Mask bit of vector control.
    pub masked: bool,
}

/// State of the [`ConfigPorts`](crate::ConfigPorts).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigPortsState {
    /// Address register (PCI 3.0, 3.2.2.3.2).
    pub address: u32,
}
