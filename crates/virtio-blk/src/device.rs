//! The device: what the driver configures, and the thread that does the work.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use nerite_memory::GuestRam;
use nerite_saved::{check_version, require_same};
use nerite_virtio::{
    Activation, Causes, Chain, DeviceState, Enter, Event, Kind, LogBudget, Notifier, Queue,
    RestoreError, StartError, VirtioDevice, Worker, config_bytes, lock,
};

use serde::{Deserialize, Serialize};

use crate::config;
use crate::counters::{Counters, Totals};
use crate::disk::Disk;
use crate::request::{Failure, Request, Terms};
use crate::spec::MAX_SERIAL;

/// Entries of the queue.
pub const QUEUE_SIZE: u16 = 256;
/// Virtio device and PCI class of a block device (mass storage, other).
const KIND: Kind = Kind { id: 2, class: 0x01_80_00 };

/// Version of [`BlkState`].
const STATE_VERSION: u32 = 1;

/// Saved state of a [`Blk`]. The disk's contents are not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlkState {
    /// Version of this layout: 1.
    pub version: u32,
    /// Size of the disk in sectors, which the driver knows.
    pub sectors: u64,
}

struct Live {
    queue: Queue,
    notifier: Arc<Notifier>,
    log: Arc<LogBudget>,
    features: u64,
    chain: Chain,
    /// Tells the activations by drivers apart.
    activation: u64,
}

/// State that the driver has set up, and the progress of the thread.
#[derive(Default)]
struct State {
    live: Option<Live>,
    activations: u64,
    /// The function is no bus master.
    is_paused: bool,
    /// The thread is to end.
    is_halted: bool,
    /// The thread has a request.
    is_working: bool,
    /// The thread moves data between the disk and guest memory.
    is_moving: bool,
}

pub(crate) struct Shared {
    /// The thread does not hold it while it works on the disk.
    state: Mutex<State>,
    /// Notified when the thread has moved the data of a request, and when it is through with it.
    progressed: Condvar,
    /// Goes up when the request that the thread works on is to be given up.
    epoch: AtomicU64,
    /// The thread's.
    disk: Mutex<Box<dyn Disk>>,
    sectors: u64,
    is_read_only: bool,
    serial: [u8; MAX_SERIAL],
    counters: Counters,
}

/// A request that the thread works on.
struct Work {
    request: Request,
    chain: Chain,
    ram: Arc<GuestRam>,
    activation: u64,
    epoch: u64,
}

/// A virtio block device.
///
/// Once it is part of a machine, [`Blk::run`] starts its thread; it ends with the device.
pub struct Blk {
    pub(crate) shared: Arc<Shared>,
    features: u64,
    config: [u8; 60],
    worker: Worker,
}

impl Blk {
    /// A device for `disk`, with a serial number.
    ///
    /// # Errors
    /// If the process or the host has no descriptor left.
    pub fn new(disk: Box<dyn Disk>, serial: [u8; MAX_SERIAL]) -> io::Result<Self> {
        let (sectors, is_read_only) = (disk.sectors(), disk.is_read_only());
        let (features, config) = (config::features(is_read_only), config::bytes(sectors));
        let shared = Shared {
            state: Mutex::default(),
            progressed: Condvar::new(),
            epoch: AtomicU64::new(0),
            disk: Mutex::new(disk),
            sectors,
            is_read_only,
            serial,
            counters: Counters::default(),
        };
        Ok(Self { shared: Arc::new(shared), features, config, worker: Worker::new("disk")? })
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
        lock(&self.shared.state).is_halted = false;
        let shared = self.shared.clone();
        self.worker.run(notifier, kicks, enter, move || shared.turn())
    }

    /// Ends the device's thread. Requests wait until [`Self::run`] is called again, and so does the
    /// one that it is moving data for.
    pub fn halt(&self) {
        lock(&self.shared.state).is_halted = true;
        self.shared.give_up();
        self.worker.halt();
    }

    /// Requests and bytes so far.
    pub fn totals(&self) -> Totals {
        self.shared.counters.totals()
    }
}

impl Shared {
    /// Serves one request. Returns whether there may be more.
    pub(crate) fn turn(&self) -> bool {
        match self.take() {
            Ok(work) => self.serve(work),
            Err(has_more) => has_more,
        }
    }

    /// Takes a request, or says whether there may be more.
    fn take(&self) -> Result<Work, bool> {
        let mut state = lock(&self.state);
        let State {
            live: Some(live),
            is_paused: false,
            is_halted: false,
            is_working,
            is_moving,
            ..
        } = &mut *state
        else {
            return Err(false);
        };
        if live.notifier.has_failed() {
            return Err(false);
        }
        let is_there = live.queue.pop(&mut live.chain).map_err(|error| live.fail(&error))?;
        if !is_there {
            // Says whether one has come before the driver could know that it has to notify.
            return Err(live.queue.enable_kicks().unwrap_or_else(|error| live.fail(&error)));
        }
        let ram = live.queue.ram().clone();
        let terms = Terms {
            features: live.features,
            sectors: self.sectors,
            is_read_only: self.is_read_only,
        };
        let request = Request::read(&live.chain, &ram, terms).map_err(|error| live.fail(&error))?;
        *is_moving = request.moves_data();
        *is_working = true;
        let (chain, activation) = (std::mem::take(&mut live.chain), live.activation);
        Ok(Work { request, chain, ram, activation, epoch: self.epoch.load(Ordering::Acquire) })
    }

    /// Does what a request asks for. Returns whether there may be more.
    fn serve(&self, work: Work) -> bool {
        let mut disk = lock(&self.disk);
        let goes_on = || self.epoch.load(Ordering::Acquire) == work.epoch;
        let mut result = work.request.move_data(disk.as_mut(), &work.ram, &work.chain, goes_on);
        if work.request.moves_data() {
            lock(&self.state).is_moving = false;
            self.progressed.notify_all();
        }
        if result.is_ok() {
            // From here on guest memory is not touched but under the lock.
            result = work.request.commit(disk.as_mut());
        }
        drop(disk);
        self.answer(work, result)
    }

    /// Gives a request back, unless its driver is gone. Returns whether there may be more.
    fn answer(&self, work: Work, result: Result<(), Failure>) -> bool {
        let mut state = lock(&self.state);
        state.is_working = false;
        self.progressed.notify_all();
        let has_to_wait = state.is_paused || state.is_halted;
        let live = state.live.as_mut().filter(|live| live.activation == work.activation);
        let Some(live) = live else { return true };
        let Work { request, chain, ram, .. } = work;
        live.chain = chain;
        if has_to_wait || matches!(result, Err(Failure::GivenUp)) {
            live.queue.undo_pop(1);
            return !has_to_wait;
        }
        let written =
            request.answer(result, &live.chain, &ram, &self.serial, &self.counters, &live.log);
        let given_back = live.queue.push(live.chain.head(), written);
        match given_back.and_then(|()| live.queue.wants_interrupt()) {
            Ok(true) => drop(live.notifier.queue(live.queue.index())),
            Ok(false) => {}
            Err(error) => return live.fail(&error),
        }
        true
    }

    /// Has the thread give up the request that it moves data for.
    fn give_up(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }
}

impl Live {
    /// The driver has broken a rule. There is no more to do.
    fn fail(&self, error: &dyn std::error::Error) -> bool {
        let error = Causes(error);
        self.log.warn(format_args!("the guest's disk driver: {error}; the disk needs a reset"));
        self.notifier.fail();
        false
    }
}

impl VirtioDevice for Blk {
    type State = BlkState;

    fn kind(&self) -> Kind {
        KIND
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, width: u8) -> u64 {
        config_bytes(&self.config, offset, width)
    }

    fn start(&self, activation: Activation) -> Result<(), StartError> {
        let queue = activation.queue(0)?;
        let mut state = lock(&self.shared.state);
        state.activations = state.activations.wrapping_add(1);
        state.live = Some(Live {
            queue,
            notifier: activation.notifier,
            log: activation.log,
            features: activation.features,
            chain: Chain::new(),
            activation: state.activations,
        });
        drop(state);
        self.worker.wake();
        Ok(())
    }

    fn stop(&self) {
        lock(&self.shared.state).live = None;
        self.shared.give_up();
    }

    fn is_stopped(&self) -> bool {
        !lock(&self.shared.state).is_moving
    }

    fn pause(&self) {
        let mut state = lock(&self.shared.state);
        state.is_paused = true;
        self.shared.give_up();
        // For one chunk at most.
        while state.is_moving {
            state = self.shared.progressed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn resume(&self) {
        lock(&self.shared.state).is_paused = false;
        self.worker.wake();
    }

    fn save(&self) -> io::Result<DeviceState<BlkState>> {
        let mut state = lock(&self.shared.state);
        // A request that is not through yet comes again, and does the same again. It must not reach
        // the disk after the requests of a restored guest have.
        while state.is_working {
            state = self.shared.progressed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let progress = |live: &Live| Some(live.queue.state(0));
        let device = BlkState { version: STATE_VERSION, sectors: self.shared.sectors };
        Ok(DeviceState { queues: state.live.iter().map(progress).collect(), device })
    }

    fn restore(&self, state: &BlkState) -> Result<(), RestoreError> {
        check_version("disk", state.version, STATE_VERSION)?;
        require_same("disk", "number of sectors", state.sectors == self.shared.sectors)
    }
}

impl fmt::Debug for Blk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blk").field("totals", &self.totals()).finish_non_exhaustive()
    }
}
