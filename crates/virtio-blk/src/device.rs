//! The device: what the driver configures, and the thread that does the work.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use nerite_virtio::{
    Chain, Device, Enter, Event, Kind, Notifier, Queue, Session, StartError, Worker, config_bytes, lock,
};

use crate::config;
use crate::counters::{Counters, Totals};
use crate::disk::Disk;
use crate::request::Server;
use crate::spec::MAX_SERIAL;

/// Entries of the queue.
pub const QUEUE_SIZE: u16 = 256;
/// Virtio device and PCI class of a block device (mass storage, other).
const KIND: Kind = Kind { id: 2, class: 0x01_80_00 };

/// What the thread works on.
struct Lane {
    disk: Box<dyn Disk>,
    live: Option<Live>,
}

struct Live {
    queue: Queue,
    notifier: Arc<Notifier>,
    features: u64,
    chain: Chain,
}

struct Shared {
    lane: Mutex<Lane>,
    serial: [u8; MAX_SERIAL],
    counters: Counters,
}

/// A virtio block device.
///
/// Once it is part of a machine, [`Blk::run`] starts its thread; it ends with the device.
pub struct Blk {
    shared: Arc<Shared>,
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
        let features = config::features(disk.is_read_only());
        let config = config::bytes(disk.sectors());
        let shared =
            Shared { lane: Mutex::new(Lane { disk, live: None }), serial, counters: Counters::default() };
        Ok(Self { shared: Arc::new(shared), features, config, worker: Worker::new("disk")? })
    }

    /// Starts the device's thread, which calls `enter` first. `notifier` and `kicks` are those of its transport.
    ///
    /// # Errors
    /// If the host has no thread left, or `enter` fails.
    pub fn run(&self, notifier: &Arc<Notifier>, kicks: &Arc<[Event]>, enter: Enter) -> io::Result<()> {
        let shared = self.shared.clone();
        self.worker.run(notifier, kicks, enter, move || shared.turn())
    }

    /// Ends the device's thread, after the request that it is working on. Others wait until [`Self::run`] is called again.
    pub fn halt(&self) {
        self.worker.halt();
    }

    /// What it has done.
    pub fn totals(&self) -> Totals {
        self.shared.counters.totals()
    }
}

impl Shared {
    /// Serves one request. A reset waits no longer than for that. Returns whether there may be more.
    fn turn(&self) -> bool {
        let mut lane = lock(&self.lane);
        let Lane { disk, live: Some(live) } = &mut *lane else { return false };
        if live.notifier.has_failed() {
            return false;
        }
        let mut server = Server {
            disk: disk.as_mut(),
            ram: &live.queue.ram().clone(),
            features: live.features,
            serial: &self.serial,
            counters: &self.counters,
        };
        match live.queue.pop(&mut live.chain) {
            Ok(true) => {}
            // Says whether one has come before the driver could know that it has to notify.
            Ok(false) => return live.queue.enable_kicks().unwrap_or_else(|error| live.fail(&error)),
            Err(error) => return live.fail(&error),
        }
        let written = match server.serve(&live.chain) {
            Ok(written) => written,
            Err(error) => return live.fail(&error),
        };
        let given_back = live.queue.push(live.chain.head(), written);
        match given_back.and_then(|()| live.queue.wants_interrupt()) {
            Ok(true) => drop(live.notifier.queue(live.queue.index())),
            Ok(false) => {}
            Err(error) => return live.fail(&error),
        }
        true
    }
}

impl Live {
    /// The driver has broken a rule. There is no more to do.
    fn fail(&self, error: &dyn fmt::Display) -> bool {
        log::warn!("the guest's disk driver: {error}; the disk needs a reset");
        self.notifier.fail();
        false
    }
}

impl Device for Blk {
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

    fn start(&self, session: Session) -> Result<(), StartError> {
        let live = Live {
            queue: session.queue(0)?,
            notifier: session.notifier,
            features: session.features,
            chain: Chain::new(),
        };
        lock(&self.shared.lane).live = Some(live);
        self.worker.wake();
        Ok(())
    }

    fn stop(&self) {
        lock(&self.shared.lane).live = None;
    }
}

impl fmt::Debug for Blk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blk").field("totals", &self.totals()).finish_non_exhaustive()
    }
}
