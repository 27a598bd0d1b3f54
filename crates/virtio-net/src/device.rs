//! The device: what the driver configures, and the threads that do the work.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use nerite_virtio::{
    Activation, DeviceState, Event, Kind, LogBudget, Notifier, Queue, RestoreError, StartError,
    VirtioDevice, config_bytes, feature as transport, lock,
};

use crate::backend::{Backend, Engine};
use crate::config::{Mac, NetConfig, are_consistent};
use crate::counters::Counters;
use crate::feature;
use crate::pair::Pair;
use crate::worker::Worker;

mod state;
mod tasks;
mod unplugged;

pub use state::NetState;
use tasks::{EngineTask, PairTask};

/// Entries of a queue, at most. Drivers fill receive queues with buffers of 64 KiB, so that more
/// would cost small guests much memory.
pub const QUEUE_SIZE: u16 = 256;
/// The smallest size that a largest packet can have.
const MIN_MTU: u16 = 68;
/// The largest number of queue pairs.
const MAX_PAIRS: u16 = 32;
/// Virtio device and PCI class of a network card.
const KIND: Kind = Kind { id: 1, class: 0x02_00_00 };

/// A card cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not as many backends as pairs, or a number of pairs that there cannot be.
    #[error("{pairs} queue pairs with {backends} backends: give one to each of 1 to 32 pairs")]
    Pairs {
        /// Number of pairs in the configuration.
        pairs: u16,
        /// Number of backends.
        backends: usize,
    },
    /// A largest packet that no card has.
    #[error("a network card with packets of {0} bytes: 68 are the least")]
    Mtu(u16),
    /// The host cannot do it.
    #[error("a network card's {what}")]
    Host {
        /// Operation that failed.
        what: &'static str,
        /// Error of the host.
        source: io::Error,
    },
}

/// The other side of a card.
pub enum Side {
    /// A backend for each queue pair, driven by a thread each.
    Backends(Vec<Box<dyn Backend>>),
    /// A backend that works on the queues by itself.
    Engine(Box<dyn Engine>),
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backends(_) => "Backends",
            Self::Engine(_) => "Engine",
        })
    }
}

/// State of a pair's thread.
struct Lane {
    backend: Box<dyn Backend>,
    live: Option<Live>,
    /// The function is no bus master.
    is_paused: bool,
}

struct Live {
    index: u16,
    pair: Pair,
    /// The first pair answers commands, too.
    control: Option<Queue>,
    notifier: Arc<Notifier>,
    log: Arc<LogBudget>,
}

/// State of the driver of an engine.
#[derive(Default)]
struct EngineState {
    /// The activation by the driver, and the control queue, if the driver has enabled it.
    live: Option<(Activation, Option<Queue>)>,
    /// The function is no bus master.
    is_paused: bool,
}

/// State shared by all threads of a card.
struct Shared {
    config: NetConfig,
    /// Address that the driver sees: a restored card keeps its own.
    mac: Mutex<Mac>,
    counters: Counters,
    lanes: Vec<Mutex<Lane>>,
    /// Wakes a pair's thread for another turn.
    wakes: Vec<Event>,
    engine: Mutex<Option<Box<dyn Engine>>>,
    /// Events of an engine's queues, for interrupts that it cannot raise by itself.
    calls: Vec<Event>,
    /// An engine's driver has broken a rule.
    broken: Event,
    /// There may be commands for the thread of an engine's card.
    control_wake: Event,
    /// An engine is to be told of the link.
    link_changed: Event,
    engine_state: Mutex<EngineState>,
    pairs_in_use: AtomicU16,
    link_up: AtomicBool,
}

/// A virtio network card.
///
/// Once it is part of a machine, [`Net::run`] starts its threads; they end with the card.
pub struct Net {
    shared: Arc<Shared>,
    queue_sizes: Vec<u16>,
    workers: Mutex<Vec<Worker>>,
}

impl Net {
    /// A card with the other side `side`.
    ///
    /// # Errors
    /// If backends and pairs do not match, or the process or the host has no descriptor left.
    pub fn new(config: NetConfig, side: Side) -> Result<Self, Error> {
        let pairs = config.pairs;
        let (backends, engine) = match side {
            Side::Backends(backends) => (backends, None),
            Side::Engine(engine) => (Vec::new(), Some(engine)),
        };
        let fits = engine.is_some() || backends.len() == usize::from(pairs);
        if !fits || pairs == 0 || pairs > MAX_PAIRS {
            return Err(Error::Pairs { pairs, backends: backends.len() });
        }
        // 5.1.4.1.
        if let Some(mtu) = config.mtu.filter(|mtu| *mtu < MIN_MTU) {
            return Err(Error::Mtu(mtu));
        }
        let data_queues = pairs.saturating_mul(2);
        let events = |count| (0..count).map(|_| Event::new()).collect::<io::Result<Vec<_>>>();
        let host = |source| Error::Host { what: "events", source };
        let lane = |backend| Mutex::new(Lane { backend, live: None, is_paused: false });
        let shared = Shared {
            config,
            mac: Mutex::new(config.mac),
            counters: Counters::new(pairs),
            wakes: events(backends.len()).map_err(host)?,
            calls: events(if engine.is_some() { data_queues.into() } else { 0 }).map_err(host)?,
            broken: Event::new().map_err(host)?,
            control_wake: Event::new().map_err(host)?,
            link_changed: Event::new().map_err(host)?,
            lanes: backends.into_iter().map(lane).collect(),
            engine: Mutex::new(engine),
            engine_state: Mutex::default(),
            pairs_in_use: AtomicU16::new(1),
            link_up: AtomicBool::new(true),
        };
        // And the control queue.
        let queue_sizes = vec![QUEUE_SIZE; usize::from(data_queues.saturating_add(1))];
        Ok(Self { shared: Arc::new(shared), queue_sizes, workers: Mutex::new(Vec::new()) })
    }

    /// Starts the card's threads: one for each queue pair. `notifier` and `kicks` are those of the
    /// card's transport.
    ///
    /// # Errors
    /// If the host has no thread left.
    pub fn run(&self, notifier: &Arc<Notifier>, kicks: &Arc<[Event]>) -> Result<(), Error> {
        let mut workers = lock(&self.workers);
        let lanes = self.shared.lanes.len();
        let threads = if lanes == 0 { 1 } else { lanes };
        for index in 0..threads {
            let shared = self.shared.clone();
            let (notifier, kicks) = (notifier.clone(), kicks.clone());
            let name = format!("net-pair{index}");
            let worker = if lanes == 0 {
                Worker::start(name, EngineTask { shared, notifier, kicks })
            } else {
                Worker::start(name, PairTask { shared, index, notifier, kicks })
            };
            workers.push(worker.map_err(|source| Error::Host { what: "thread", source })?);
        }
        Ok(())
    }

    /// Ends the card's threads. The driver's requests wait until [`Self::run`] is called again.
    pub fn halt(&self) {
        let workers = std::mem::take(&mut *lock(&self.workers));
        drop(workers);
    }

    /// Counters so far. An [`Engine`]'s queues are not counted.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// `true` if an [`Engine`] works on its queues.
    pub fn has_engine(&self) -> bool {
        !self.shared.calls.is_empty()
    }

    /// Its configuration.
    pub fn config(&self) -> NetConfig {
        NetConfig { mac: *lock(&self.shared.mac), ..self.shared.config }
    }

    /// Says whether the link is up; the driver sees that. While it is not, frames of both sides are
    /// dropped; an [`Engine`] may keep those of the driver. A frame that comes to a backend after
    /// this has returned is not dropped for a link that was down before. Returns whether the link
    /// has changed, for [`Notifier::config_changed`].
    pub fn set_link(&self, up: bool) -> bool {
        let is_new = self.shared.link_up.swap(up, Ordering::AcqRel) != up;
        if is_new {
            // Batches that have begun end with the link that they began with.
            self.shared.lanes.iter().for_each(|lane| drop(lock(lane)));
            self.shared.link_changed.signal();
            self.shared.wakes.iter().for_each(Event::signal);
        }
        is_new
    }

    fn control_index(&self, features: u64) -> u16 {
        // Without MQ there is one pair, and the control queue follows it (5.1.2).
        let pairs = if features & feature::MQ != 0 { self.shared.config.pairs } else { 1 };
        pairs.saturating_mul(2)
    }

    fn control(&self, activation: &Activation) -> Result<Option<Queue>, StartError> {
        if activation.features & feature::CTRL_VQ == 0 {
            return Ok(None);
        }
        // Some drivers accept the feature and never set the queue up.
        activation.enabled_queue(self.control_index(activation.features))
    }

    fn start_pairs(&self, activation: &Activation) -> Result<(), StartError> {
        let pairs =
            if activation.features & feature::MQ != 0 { self.shared.config.pairs } else { 1 };
        for (index, lane) in (0..).zip(&self.shared.lanes) {
            let first = u16::saturating_mul(index, 2);
            let is_offered = index < pairs;
            let enabled =
                |index| if is_offered { activation.enabled_queue(index) } else { Ok(None) };
            let (rx, tx) = (enabled(first)?, enabled(first.saturating_add(1))?);
            let mut lane = lock(lane);
            let host = |what| move |source| StartError::Host { what, source };
            lane.backend
                .set_features(activation.features)
                .map_err(host("setting a network backend up"))?;
            if let Err(error) = lane.backend.set_enabled(index == 0) {
                activation.log.warn(format_args!("queue pair {index} of a network card: {error}"));
            }
            // The control queue is in use without any other, too.
            if index > 0 && rx.is_none() && tx.is_none() {
                continue;
            }
            lane.backend.discard();
            lane.live = Some(Live {
                index,
                pair: Pair::new(rx, tx, activation.features, self.shared.config.mtu),
                control: if index == 0 { self.control(activation)? } else { None },
                notifier: activation.notifier.clone(),
                log: activation.log.clone(),
            });
        }
        for wake in &self.shared.wakes {
            wake.signal();
        }
        Ok(())
    }
}

impl VirtioDevice for Net {
    type State = NetState;

    fn kind(&self) -> Kind {
        KIND
    }

    fn features(&self) -> u64 {
        self.shared.config.features() | transport::INDIRECT_DESC | transport::EVENT_IDX
    }

    fn accepts(&self, features: u64) -> bool {
        are_consistent(features)
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, width: u8) -> u64 {
        config_bytes(
            &self.config().bytes(self.shared.link_up.load(Ordering::Acquire)),
            offset,
            width,
        )
    }

    fn start(&self, activation: Activation) -> Result<(), StartError> {
        self.shared.pairs_in_use.store(1, Ordering::Release);
        let mut engine = lock(&self.shared.engine);
        self.shared.tell_engine(&mut engine);
        let Some(engine) = engine.as_mut() else { return self.start_pairs(&activation) };
        let control = self.control(&activation)?;
        self.shared.broken.take();
        engine.start(&activation, &self.shared.calls, &self.shared.broken).map_err(|source| {
            StartError::Host { what: "handing queues to the host's kernel", source }
        })?;
        lock(&self.shared.engine_state).live = Some((activation, control));
        Ok(())
    }

    fn stop(&self) {
        if let Some(engine) = lock(&self.shared.engine).as_mut() {
            engine.stop();
            self.shared.broken.take();
        }
        lock(&self.shared.engine_state).live = None;
        for lane in &self.shared.lanes {
            lock(lane).live = None;
        }
    }

    fn pause(&self) {
        self.shared.set_paused(true);
    }

    fn resume(&self) {
        self.shared.set_paused(false);
    }

    fn save(&self) -> io::Result<DeviceState<NetState>> {
        Ok(DeviceState { queues: self.queue_states()?, device: self.own_state() })
    }

    fn restore(&self, state: &NetState) -> Result<(), RestoreError> {
        self.restore_own(state)
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
