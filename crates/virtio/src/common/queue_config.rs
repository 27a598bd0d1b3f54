//! Configuration of a queue by its driver, and the checks of it (virtio 1.2, 2.7).

use nerite_memory::GuestRam;
use serde::{Deserialize, Serialize};

use super::Registers;

/// Progress of a split virtqueue: positions in its rings, which are in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueState {
    /// Index of the next request in the available ring, modulo 65536.
    pub next_available: u16,
    /// Index of the next entry in the used ring, modulo 65536.
    pub next_used: u16,
}

/// A queue that is enabled, as it stays until the next reset: its rings are aligned and in RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Its number.
    pub index: u16,
    /// Number of entries, a power of two.
    pub size: u16,
    /// The most entries that the device allows, and so the most descriptors of an indirect table.
    pub max_size: u16,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
    /// Position of the device; zero unless it is restored.
    pub progress: QueueState,
}

/// Reason why a queue cannot be used. The device needs a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueFault {
    /// Not a power of two, or larger than the device allows (2.7).
    #[error("queue {index} is to have {size} entries: that is not a power of two from 1 to {max}")]
    Size {
        /// Which queue.
        index: u16,
        /// Size that the driver chose.
        size: u16,
        /// Maximum size.
        max: u16,
    },
    /// A ring is not aligned (2.7).
    #[error("queue {index}: {ring} at {address:#x} is not aligned")]
    Alignment {
        /// Which queue.
        index: u16,
        /// Which part of it.
        ring: &'static str,
        /// Address that the driver gave.
        address: u64,
    },
    /// A ring is not in RAM.
    #[error("queue {index}: {ring} at {address:#x} is not in RAM")]
    OutsideRam {
        /// Which queue.
        index: u16,
        /// Which part of it.
        ring: &'static str,
        /// Address that the driver gave.
        address: u64,
    },
}

/// Checks a queue (2.7): its size, and that its parts are aligned and in RAM.
pub(super) fn check(
    index: u16,
    queue: &Registers,
    ram: &GuestRam,
) -> Result<QueueConfig, QueueFault> {
    let Registers { size, max_size: max, addresses: [descriptors, available, used], .. } = *queue;
    if !size.is_power_of_two() || size > max {
        return Err(QueueFault::Size { index, size, max });
    }
    let entries = u64::from(size);
    let parts = [
        ("the descriptor table", descriptors, 16, entries.saturating_mul(16)),
        ("the available ring", available, 2, entries.saturating_mul(2).saturating_add(6)),
        ("the used ring", used, 4, entries.saturating_mul(8).saturating_add(6)),
    ];
    for (ring, address, alignment, length) in parts {
        if !address.is_multiple_of(alignment) {
            return Err(QueueFault::Alignment { index, ring, address });
        }
        // Address 0 is what a register holds that was never written.
        if address == 0 || ram.check(address, length).is_err() {
            return Err(QueueFault::OutsideRam { index, ring, address });
        }
    }
    Ok(QueueConfig {
        index,
        size,
        max_size: max,
        descriptors,
        available,
        used,
        progress: QueueState::default(),
    })
}
