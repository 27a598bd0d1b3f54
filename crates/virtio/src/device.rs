//! The trait that a virtio device implements.

use std::fmt;
use std::io;
use std::sync::Arc;

use nerite_log_budget::LogBudget;
use nerite_memory::GuestRam;

use nerite_saved::RestoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::common::QueueConfig;
use crate::{Event, Notifier, Queue, QueueError, QueueState};

/// Kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Virtio device identifier (virtio 1.2, 5): 1 is a network card.
    pub id: u16,
    /// PCI class, subclass and programming interface.
    pub class: u32,
}

impl Kind {
    /// Its driver, as a source of log lines.
    pub(crate) fn driver(self) -> &'static str {
        match self.id {
            1 => "the guest's network driver",
            2 => "the guest's disk driver",
            3 => "the guest's console driver",
            4 => "the guest's driver of random numbers",
            5 => "the guest's balloon driver",
            19 => "the guest's socket driver",
            _ => "the guest's virtio driver",
        }
    }
}

/// Reason why a device cannot start with the driver's choices. It needs a reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A queue that the device cannot do without is not enabled.
    #[error("queue {0} is not enabled")]
    QueueMissing(u16),
    /// A queue cannot be used.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The host backend failed.
    #[error("{what}")]
    Host {
        /// Operation that failed.
        what: &'static str,
        /// Error of the host.
        source: io::Error,
    },
}

/// Resources of a device from the time its driver is ready until the next reset.
#[derive(Clone)]
pub struct Activation {
    /// The features both sides agreed on.
    pub features: u64,
    /// The queues that the driver has enabled, by number; they no longer change. A restored device
    /// resumes at their [`QueueConfig::progress`].
    pub queues: Arc<[Option<QueueConfig>]>,
    /// Signalled when the driver says that a queue has new requests, by queue.
    pub kicks: Arc<[Event]>,
    /// Raises interrupts.
    pub notifier: Arc<Notifier>,
    /// Guest memory.
    pub ram: Arc<GuestRam>,
    /// Logs what the driver does wrong.
    pub log: Arc<LogBudget>,
}

impl Activation {
    /// Queue number `index`, to be used.
    ///
    /// # Errors
    /// If it is not enabled.
    pub fn queue(&self, index: u16) -> Result<Queue, StartError> {
        let config = self.queues.get(usize::from(index)).and_then(Option::as_ref);
        let config = config.ok_or(StartError::QueueMissing(index))?;
        Ok(Queue::new(self.ram.clone(), config, self.features)?)
    }

    /// Queue number `index`, if the driver has enabled it.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn enabled_queue(&self, index: u16) -> Result<Option<Queue>, StartError> {
        match self.queue(index) {
            Err(StartError::QueueMissing(_)) => Ok(None),
            other => other.map(Some),
        }
    }
}

impl fmt::Debug for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activation")
            .field("features", &format_args!("{:#x}", self.features))
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

/// State of a device and of its queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceState<S> {
    /// Progress by queue number; `None` for queues that are not in use, as are those that follow
    /// the last one.
    pub queues: Vec<Option<QueueState>>,
    /// The device's own state.
    pub device: S,
}

/// A virtio device, without its transport.
pub trait VirtioDevice: Send + Sync {
    /// Saved state of the device besides its queues.
    type State: fmt::Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send;

    /// Its kind.
    fn kind(&self) -> Kind;

    /// The features it offers, its own and those of [`crate::feature`];
    /// [`crate::feature::VERSION_1`] is always offered.
    fn features(&self) -> u64;

    /// Returns `true` if the device works with these features, a part of those it offers. The
    /// default is `true`.
    fn accepts(&self, _features: u64) -> bool {
        true
    }

    /// The largest size of each queue, powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// Reads `width` bytes (1 to 8) of the device's configuration, little-endian. What is not there
    /// reads zero.
    fn read_config(&self, offset: u64, width: u8) -> u64;

    /// Writes the device's configuration. The default ignores it: everything is read-only.
    fn write_config(&self, _offset: u64, _width: u8, _value: u64) {}

    /// The driver is ready. Called on a vCPU's thread, which must not be kept.
    ///
    /// # Errors
    /// If the device cannot work like this.
    fn start(&self, activation: Activation) -> Result<(), StartError>;

    /// The driver resets the device: requests are given up. Called on a vCPU's thread, which must
    /// not be kept, and also when the device was not started.
    fn stop(&self);

    /// `true` if queues and guest memory are no longer touched after [`Self::stop`], whose end this
    /// is then, until the next start. By default they are not touched when `stop` returns.
    fn is_stopped(&self) -> bool {
        true
    }

    /// The function is no bus master (PCI 3.0, 6.2.2), or the machine is paused. When this returns,
    /// queues and guest memory are no longer touched, whether the device is started or is started
    /// later. Requests wait.
    fn pause(&self);

    /// Ends [`Self::pause`]: the device resumes where it was.
    fn resume(&self);

    /// State of the paused device and of its queues. Requests in flight are finished, or count as
    /// not taken yet: a restored device takes them again.
    ///
    /// # Errors
    /// Fails if the host does.
    fn save(&self) -> io::Result<DeviceState<Self::State>>;

    /// Takes a saved state while paused. Queues have their progress by then: if the driver was
    /// ready, [`Self::start`] was called with it.
    ///
    /// # Errors
    /// Fails if the device cannot be in this state.
    fn restore(&self, state: &Self::State) -> Result<(), RestoreError>;
}

/// `width` bytes of `config` at `offset`, little-endian; what is not there is zero.
pub fn config_bytes(config: &[u8], offset: u64, width: u8) -> u64 {
    let mut bytes = [0; 8];
    let from =
        usize::try_from(offset).ok().and_then(|start| config.get(start..)).unwrap_or_default();
    for (to, from) in bytes.iter_mut().zip(from).take(width.into()) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
}
