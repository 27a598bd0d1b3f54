//! The common configuration (virtio 1.2, 4.1.4.3) and the status handshake (3.1), as plain data.

use nerite_memory::GuestRam;

use crate::feature;

mod queue_config;
mod state;

use queue_config::check;
pub use queue_config::{QueueConfig, QueueFault, QueueState};
pub use state::{CommonState, QueueRegistersState};

/// No MSI-X vector (4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// Bits of the device status (2.1).
pub mod status {
    /// The driver has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Both sides agree on the features.
    pub const FEATURES_OK: u8 = 8;
    /// The device needs a reset.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;
}

/// Offsets of the registers (4.1.4.3).
#[allow(missing_docs, reason = "each is the register of the same name in the specification")]
pub mod common_cfg {
    pub const DEVICE_FEATURE_SELECT: u64 = 0;
    pub const DEVICE_FEATURE: u64 = 4;
    pub const DRIVER_FEATURE_SELECT: u64 = 8;
    pub const DRIVER_FEATURE: u64 = 12;
    pub const CONFIG_MSIX_VECTOR: u64 = 16;
    pub const NUM_QUEUES: u64 = 18;
    pub const DEVICE_STATUS: u64 = 20;
    pub const CONFIG_GENERATION: u64 = 21;
    pub const QUEUE_SELECT: u64 = 22;
    pub const QUEUE_SIZE: u64 = 24;
    pub const QUEUE_MSIX_VECTOR: u64 = 26;
    pub const QUEUE_ENABLE: u64 = 28;
    pub const QUEUE_NOTIFY_OFF: u64 = 30;
    pub const QUEUE_DESC: u64 = 32;
    pub const QUEUE_DRIVER: u64 = 40;
    pub const QUEUE_DEVICE: u64 = 48;
    // Virtio 1.3; those of features that are not offered read zero.
    pub const QUEUE_NOTIF_CONFIG_DATA: u64 = 56;
    pub const QUEUE_RESET: u64 = 58;
    pub const ADMIN_QUEUE_INDEX: u64 = 60;
    pub const ADMIN_QUEUE_NUM: u64 = 62;
    /// Bytes of the structure. Drivers may want all of it, whatever the device offers.
    pub const LENGTH: u32 = 64;
}
use common_cfg::*;

/// The registers of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Registers {
    max_size: u16,
    size: u16,
    vector: u16,
    enabled: bool,
    addresses: [u64; 3],
}

impl Registers {
    fn new(max_size: u16) -> Self {
        Self { max_size, size: max_size, vector: NO_VECTOR, enabled: false, addresses: [0; 3] }
    }
}

/// The queues: registers that can be written, and then no more.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Queues {
    Setup(Vec<Registers>),
    /// From DRIVER_OK to the next reset.
    Frozen(Box<[Registers]>),
}

/// Action of the transport that follows from a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Reset the device: stop it, then call [`Common::reset`].
    Reset,
    /// The driver is ready: call [`Common::freeze`], then start the device.
    Start,
    /// Look at these features and call [`Common::features_ok`] if the device works with them.
    CheckFeatures {
        /// The features that the driver accepted, all of them offered.
        features: u64,
        /// `true` if the same write also said that the driver is ready.
        then_start: bool,
    },
    /// The MSI-X vector for configuration changes is this one now.
    ConfigVector(u16),
    /// The MSI-X vector of a queue.
    QueueVector {
        /// Which queue.
        index: u16,
        /// The vector, or none.
        vector: u16,
    },
}

/// The registers of the common configuration. Writes to registers that are read-only, or frozen, or
/// not there are ignored, as are accesses of a wrong width, which read all ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Common {
    offered: u64,
    accepted: u64,
    /// `true` if the driver accepted a feature of a word that is not there.
    accepted_unknown: bool,
    status: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    config_vector: u16,
    vectors: u16,
    queue_select: u16,
    queues: Queues,
}

impl Common {
    /// The registers of a device that offers `features`, has queues of at most these sizes and
    /// `vectors` MSI-X vectors.
    pub fn new(features: u64, queue_sizes: &[u16], vectors: u16) -> Self {
        Self {
            offered: features | feature::VERSION_1,
            accepted: 0,
            accepted_unknown: false,
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            config_vector: NO_VECTOR,
            vectors,
            queue_select: 0,
            queues: Queues::Setup(queue_sizes.iter().copied().map(Registers::new).collect()),
        }
    }

    /// The device status, without the bit that is the device's own.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// The features that the driver has accepted so far.
    pub fn features(&self) -> u64 {
        self.accepted
    }

    /// Returns `true` if both sides agree on the features.
    pub fn has_agreed(&self) -> bool {
        self.status & status::FEATURES_OK != 0
    }

    /// `true` if queues are frozen: the driver is ready.
    pub fn is_frozen(&self) -> bool {
        matches!(self.queues, Queues::Frozen(_))
    }

    /// `true` if queue `index` is in use.
    pub fn is_live(&self, index: u16) -> bool {
        self.is_frozen() && self.queues().get(usize::from(index)).is_some_and(|queue| queue.enabled)
    }

    /// As after power on. The device is the same, so what it offers stays.
    pub fn reset(&mut self) {
        let sizes: Vec<_> = self.queues().iter().map(|queue| queue.max_size).collect();
        *self = Self::new(self.offered, &sizes, self.vectors);
    }

    /// The device works with the features that the driver has accepted.
    pub fn features_ok(&mut self) {
        self.status |= status::FEATURES_OK;
    }

    /// Freezes the queues, and returns those that are enabled, by number.
    ///
    /// # Errors
    /// If one of them cannot be used.
    pub fn freeze(&mut self, ram: &GuestRam) -> Result<Vec<Option<QueueConfig>>, QueueFault> {
        self.status |= status::DRIVER_OK;
        self.queues = Queues::Frozen(self.queues().into());
        self.enabled_queues(ram)
    }

    /// The queues that are enabled, by number.
    ///
    /// # Errors
    /// If one of them cannot be used.
    fn enabled_queues(&self, ram: &GuestRam) -> Result<Vec<Option<QueueConfig>>, QueueFault> {
        let enabled = |(index, queue): (u16, &Registers)| {
            queue.enabled.then(|| check(index, queue, ram)).transpose()
        };
        (0..).zip(self.queues()).map(enabled).collect()
    }

    fn queues(&self) -> &[Registers] {
        match &self.queues {
            Queues::Setup(queues) => queues,
            Queues::Frozen(queues) => queues,
        }
    }

    fn selected(&self) -> Option<&Registers> {
        self.queues().get(usize::from(self.queue_select))
    }

    /// The selected queue, if it can still be changed: neither enabled nor frozen (4.1.4.3.2).
    fn selected_mut(&mut self) -> Option<&mut Registers> {
        match &mut self.queues {
            Queues::Setup(queues) => {
                queues.get_mut(usize::from(self.queue_select)).filter(|queue| !queue.enabled)
            }
            Queues::Frozen(_) => None,
        }
    }

    /// Reads `width` bytes at `offset`. `generation` is the device configuration's.
    pub fn read(&self, offset: u64, width: u8, generation: u8, device_status: u8) -> u64 {
        let queue = self.selected();
        match (offset, width) {
            (DEVICE_FEATURE_SELECT, 4) => self.device_feature_select.into(),
            (DEVICE_FEATURE, 4) => word(self.offered, self.device_feature_select),
            (DRIVER_FEATURE_SELECT, 4) => self.driver_feature_select.into(),
            (DRIVER_FEATURE, 4) => word(self.accepted, self.driver_feature_select),
            (CONFIG_MSIX_VECTOR, 2) => self.config_vector.into(),
            (NUM_QUEUES, 2) => self.queues().len().try_into().unwrap_or(u64::MAX),
            (DEVICE_STATUS, 1) => (self.status | device_status).into(),
            (CONFIG_GENERATION, 1) => generation.into(),
            (QUEUE_SELECT, 2) => self.queue_select.into(),
            // A queue that is not there has size 0 (4.1.4.3.1).
            (QUEUE_SIZE, 2) => queue.map_or(0, |queue| queue.size.into()),
            (QUEUE_MSIX_VECTOR, 2) => queue.map_or(NO_VECTOR, |queue| queue.vector).into(),
            (QUEUE_ENABLE, 2) => queue.is_some_and(|queue| queue.enabled).into(),
            (QUEUE_NOTIFY_OFF, 2) => queue.map_or(0, |_| self.queue_select.into()),
            (QUEUE_DESC..QUEUE_NOTIF_CONFIG_DATA, 4 | 8) if offset.is_multiple_of(width.into()) => {
                let value =
                    queue.and_then(|queue| queue.addresses.get(ring(offset))).copied().unwrap_or(0);
                if offset.is_multiple_of(8) { value } else { value >> 32 }
            }
            (QUEUE_NOTIF_CONFIG_DATA | QUEUE_RESET | ADMIN_QUEUE_INDEX | ADMIN_QUEUE_NUM, 2) => 0,
            _ => u64::MAX,
        }
    }

    /// Writes `width` bytes at `offset`, and says what is to be done about it.
    pub fn write(&mut self, offset: u64, width: u8, value: u64) -> Action {
        let [b0, b1, b2, b3, ..] = value.to_le_bytes();
        let (half, full) = (u16::from_le_bytes([b0, b1]), u32::from_le_bytes([b0, b1, b2, b3]));
        match (offset, width) {
            (DEVICE_FEATURE_SELECT, 4) => self.device_feature_select = full,
            (DRIVER_FEATURE_SELECT, 4) => self.driver_feature_select = full,
            (DRIVER_FEATURE, 4) => self.accept(full),
            (CONFIG_MSIX_VECTOR, 2) => {
                self.config_vector = self.vector(half);
                return Action::ConfigVector(self.config_vector);
            }
            (DEVICE_STATUS, 1) => return self.set_status(b0),
            (QUEUE_SELECT, 2) => self.queue_select = half,
            (QUEUE_SIZE, 2) => {
                self.selected_mut().into_iter().for_each(|queue| queue.size = half);
            }
            (QUEUE_MSIX_VECTOR, 2) => return self.set_queue_vector(half),
            (QUEUE_ENABLE, 2) if half == 1 => {
                self.selected_mut().into_iter().for_each(|queue| queue.enabled = true);
            }
            (QUEUE_DESC..QUEUE_NOTIF_CONFIG_DATA, 4 | 8) if offset.is_multiple_of(width.into()) => {
                self.set_address(offset, width, value);
            }
            _ => {}
        }
        Action::None
    }

    fn accept(&mut self, bits: u32) {
        if self.status & status::FEATURES_OK != 0 {
            return;
        }
        match self.driver_feature_select {
            0 => self.accepted = self.accepted & !0xffff_ffff | u64::from(bits),
            1 => self.accepted = self.accepted & 0xffff_ffff | u64::from(bits) << 32,
            _ => self.accepted_unknown |= bits != 0,
        }
    }

    fn set_queue_vector(&mut self, vector: u16) -> Action {
        let (index, vector) = (self.queue_select, self.vector(vector));
        // Drivers choose vectors for queues that they have enabled already; until they are ready,
        // that is fine.
        let queue = match &mut self.queues {
            Queues::Setup(queues) => queues.get_mut(usize::from(index)),
            Queues::Frozen(_) => None,
        };
        let Some(queue) = queue else { return Action::None };
        queue.vector = vector;
        Action::QueueVector { index, vector }
    }

    fn set_address(&mut self, offset: u64, width: u8, value: u64) {
        let address = self.selected_mut().and_then(|queue| queue.addresses.get_mut(ring(offset)));
        let Some(address) = address else { return };
        *address = match (width, offset.is_multiple_of(8)) {
            (8, _) => value,
            (_, true) => *address & !0xffff_ffff | value,
            (_, false) => *address & 0xffff_ffff | value << 32,
        };
    }

    /// A vector that is not there becomes none, which the driver sees when it reads it back
    /// (4.1.5.1.2.1).
    fn vector(&self, vector: u16) -> u16 {
        if vector < self.vectors { vector } else { NO_VECTOR }
    }

    /// The driver's side of the handshake (3.1.1). Bits can be set only, and only in their order.
    fn set_status(&mut self, value: u8) -> Action {
        if value == 0 {
            return Action::Reset;
        }
        let known = status::ACKNOWLEDGE | status::DRIVER | status::FAILED;
        self.status |= value & known;
        let may_agree = self.status & (status::ACKNOWLEDGE | status::DRIVER | status::FAILED)
            == status::ACKNOWLEDGE | status::DRIVER;
        let starts = value & status::DRIVER_OK != 0 && self.status & status::DRIVER_OK == 0;
        if self.status & status::FEATURES_OK == 0 {
            let is_offered = self.accepted & !self.offered == 0 && !self.accepted_unknown;
            let agrees = is_offered && self.accepted & feature::VERSION_1 != 0;
            if value & status::FEATURES_OK != 0 && may_agree && agrees {
                return Action::CheckFeatures { features: self.accepted, then_start: starts };
            }
        } else if starts && may_agree {
            return Action::Start;
        }
        Action::None
    }
}

/// Word number `select` of feature bits; those beyond 64 bits are zero.
fn word(features: u64, select: u32) -> u64 {
    match select {
        0 => features & 0xffff_ffff,
        1 => features >> 32,
        _ => 0,
    }
}

/// Which of the three addresses of a queue the register at `offset` is part of.
fn ring(offset: u64) -> usize {
    usize::try_from(offset.saturating_sub(QUEUE_DESC) / 8).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[path = "common_test.rs"]
mod tests;
