//! Saved state of the common configuration.

use nerite_memory::GuestRam;
use nerite_saved::{RestoreError, refuse, require_same};
use serde::{Deserialize, Serialize};

use super::{Common, NO_VECTOR, QueueConfig, QueueFault, QueueState, Queues, Registers, status};
use crate::feature;

/// Registers of the common configuration, without what the device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommonState {
    /// Word of the offered features that can be read.
    pub device_feature_select: u32,
    /// Word of the accepted features that can be written.
    pub driver_feature_select: u32,
    /// Features that the driver has accepted.
    pub driver_features: u64,
    /// `true` if the driver has accepted a feature beyond the first 64.
    pub accepts_unknown: bool,
    /// Device status, without DEVICE_NEEDS_RESET.
    pub status: u8,
    /// MSI-X vector for changes of the configuration.
    pub config_vector: u16,
    /// Queue whose registers can be accessed.
    pub queue_select: u16,
    /// Registers by queue number.
    pub queues: Vec<QueueRegistersState>,
}

/// Registers of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueRegistersState {
    /// Number of entries.
    pub size: u16,
    /// MSI-X vector.
    pub vector: u16,
    /// `true` if the driver has enabled the queue.
    pub enabled: bool,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
}

const PART: &str = "virtio function";

impl Common {
    /// Contents of the registers.
    pub fn save(&self) -> CommonState {
        let registers = |queue: &Registers| {
            let Registers { size, vector, enabled, addresses, .. } = *queue;
            let [descriptors, available, used] = addresses;
            QueueRegistersState { size, vector, enabled, descriptors, available, used }
        };
        CommonState {
            device_feature_select: self.device_feature_select,
            driver_feature_select: self.driver_feature_select,
            driver_features: self.accepted,
            accepts_unknown: self.accepted_unknown,
            status: self.status,
            config_vector: self.config_vector,
            queue_select: self.queue_select,
            queues: self.queues().iter().map(registers).collect(),
        }
    }

    /// The same device with saved registers. If the driver was ready, its queues are frozen, and
    /// still to be looked at.
    ///
    /// # Errors
    /// Fails if no driver of this device can have brought the registers there.
    pub fn restored(&self, saved: &CommonState) -> Result<Self, RestoreError> {
        let CommonState { driver_features: accepted, status, config_vector, .. } = *saved;
        require_same(PART, "number of queues", saved.queues.len() == self.queues().len())?;
        let is_vector = |vector| vector < self.vectors || vector == NO_VECTOR;
        refuse(PART, "configuration vector", !is_vector(config_vector))?;
        refuse(PART, "queue vector", !saved.queues.iter().all(|queue| is_vector(queue.vector)))?;
        self.check_status(status)?;
        if status & status::FEATURES_OK != 0 {
            require_same(PART, "features", accepted & !self.offered == 0)?;
            let agrees = accepted & feature::VERSION_1 != 0 && !saved.accepts_unknown;
            refuse(PART, "features", !agrees)?;
        }
        let registers = |(queue, max_size): (&QueueRegistersState, u16)| Registers {
            max_size,
            size: queue.size,
            vector: queue.vector,
            enabled: queue.enabled,
            addresses: [queue.descriptors, queue.available, queue.used],
        };
        let max_sizes = self.queues().iter().map(|queue| queue.max_size);
        let queues = saved.queues.iter().zip(max_sizes).map(registers);
        let is_frozen = status & status::DRIVER_OK != 0;
        Ok(Self {
            offered: self.offered,
            accepted,
            accepted_unknown: saved.accepts_unknown,
            status,
            device_feature_select: saved.device_feature_select,
            driver_feature_select: saved.driver_feature_select,
            config_vector,
            vectors: self.vectors,
            queue_select: saved.queue_select,
            queues: if is_frozen {
                Queues::Frozen(queues.collect())
            } else {
                Queues::Setup(queues.collect())
            },
        })
    }

    /// Bits are set in an order (3.1.1).
    fn check_status(&self, status: u8) -> Result<(), RestoreError> {
        let began = status::ACKNOWLEDGE | status::DRIVER;
        let known = began | status::FEATURES_OK | status::DRIVER_OK | status::FAILED;
        let agrees_early = status & status::FEATURES_OK != 0 && status & began != began;
        let is_ready_early = status & status::DRIVER_OK != 0 && status & status::FEATURES_OK == 0;
        refuse(PART, "device status", status & !known != 0 || agrees_early || is_ready_early)
    }

    /// The queues that are enabled, with their progress.
    ///
    /// # Errors
    /// Fails if one of them cannot be used.
    pub(crate) fn queues_at(
        &self,
        progress: &[Option<QueueState>],
        ram: &GuestRam,
    ) -> Result<Vec<Option<QueueConfig>>, QueueFault> {
        let mut queues = self.enabled_queues(ram)?;
        for (queue, progress) in queues.iter_mut().zip(progress) {
            if let (Some(queue), Some(progress)) = (queue, progress) {
                queue.progress = *progress;
            }
        }
        Ok(queues)
    }

    /// MSI-X vectors of the queues.
    pub(crate) fn queue_vectors(&self) -> impl Iterator<Item = u16> + '_ {
        self.queues().iter().map(|queue| queue.vector)
    }

    /// MSI-X vector for changes of the configuration.
    pub(crate) fn config_vector(&self) -> u16 {
        self.config_vector
    }
}
