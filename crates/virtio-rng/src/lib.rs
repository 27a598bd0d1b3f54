#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

#[cfg(feature = "exercise")]
pub mod exercise;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use nerite_virtio::{
    Activation, Causes, Chain, DeviceState, Enter, Event, Kind, LogBudget, Notifier, Queue,
    RestoreError, StartError, VirtioDevice, Worker, feature, lock,
};
use rustix::rand::{GetRandomFlags, getrandom};

// The crate whose types are in this one's interface.
pub use nerite_virtio;

/// Virtio device and PCI class of an entropy device (no class of its own).
const KIND: Kind = Kind { id: 4, class: 0xff_00_00 };
/// Entries of the queue.
const QUEUE_SIZE: u16 = 64;
/// The most bytes for one request. A device may give fewer than there is room for (5.4.6.2), and
/// Linux asks for 64.
pub const MOST: usize = 4096;

/// State that the driver has set up.
#[derive(Default)]
struct State {
    live: Option<Live>,
    /// The function is no bus master.
    is_paused: bool,
}

struct Live {
    queue: Queue,
    notifier: Arc<Notifier>,
    log: Arc<LogBudget>,
    chain: Chain,
}

/// A virtio entropy device.
pub struct Rng {
    state: Arc<Mutex<State>>,
    worker: Worker,
}

impl Rng {
    /// A device.
    ///
    /// # Errors
    /// If the process or the host has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { state: Arc::default(), worker: Worker::new("rng")? })
    }

    /// Starts the device's thread, which calls `enter` first. `notifier` and `kicks` are those of
    /// its transport.
    ///
    /// # Errors
    /// If the host has no thread left, or `enter` fails.
    pub fn run(
        &self,
        notifier: &Arc<Notifier>,
        kicks: &Arc<[Event]>,
        enter: Enter,
    ) -> io::Result<()> {
        let state = self.state.clone();
        self.worker.run(notifier, kicks, enter, move || lock(&state).turn())
    }

    /// Ends the device's thread. Requests wait until [`Self::run`] is called again.
    pub fn halt(&self) {
        self.worker.halt();
    }
}

impl State {
    /// Serves one request. Returns whether there may be more.
    fn turn(&mut self) -> bool {
        let Self { live: Some(live), is_paused: false } = self else { return false };
        if live.notifier.has_failed() {
            return false;
        }
        live.serve().unwrap_or_else(|error| {
            let error = Causes(&*error);
            live.log.warn(format_args!(
                "the guest's driver of random numbers: {error}; the device needs a reset"
            ));
            live.notifier.fail();
            false
        })
    }
}

impl Live {
    fn serve(&mut self) -> Result<bool, Box<dyn std::error::Error>> {
        if !self.queue.pop(&mut self.chain)? {
            return Ok(self.queue.enable_kicks()?);
        }
        let wanted = usize::try_from(self.chain.writable_bytes()).unwrap_or(usize::MAX).min(MOST);
        let mut bytes = [0; MOST];
        let bytes = bytes.get_mut(..wanted).unwrap_or_default();
        let got =
            if bytes.is_empty() { 0 } else { getrandom(&mut *bytes, GetRandomFlags::empty())? };
        let bytes = bytes.get(..got).unwrap_or_default();
        let written = self.chain.copy_in(self.queue.ram(), 0, bytes);
        self.queue.push(self.chain.head(), u32::try_from(written)?)?;
        if self.queue.wants_interrupt()? {
            self.notifier.queue(self.queue.index());
        }
        Ok(true)
    }
}

impl VirtioDevice for Rng {
    type State = ();

    fn kind(&self) -> Kind {
        KIND
    }

    fn features(&self) -> u64 {
        feature::INDIRECT_DESC | feature::EVENT_IDX
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, _: u64, _: u8) -> u64 {
        0
    }

    fn start(&self, activation: Activation) -> Result<(), StartError> {
        let queue = activation.queue(0)?;
        let (notifier, log) = (activation.notifier, activation.log);
        lock(&self.state).live = Some(Live { queue, notifier, log, chain: Chain::new() });
        self.worker.wake();
        Ok(())
    }

    fn stop(&self) {
        lock(&self.state).live = None;
    }

    fn pause(&self) {
        lock(&self.state).is_paused = true;
    }

    fn resume(&self) {
        lock(&self.state).is_paused = false;
        self.worker.wake();
    }

    fn save(&self) -> io::Result<DeviceState<()>> {
        let state = lock(&self.state);
        Ok(DeviceState {
            queues: state.live.iter().map(|live| Some(live.queue.state(0))).collect(),
            device: (),
        })
    }

    fn restore(&self, (): &()) -> Result<(), RestoreError> {
        Ok(())
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rng").finish_non_exhaustive()
    }
}
