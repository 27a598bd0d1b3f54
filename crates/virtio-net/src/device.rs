//! The device: what the driver configures, and the threads that do the work.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use nerite_virtio::{
    Device, Event, Kind, Notifier, Queue, QueueError, Session, StartError, config_bytes, feature as transport,
};

use crate::backend::{Backend, Engine};
use crate::config::{NetConfig, are_consistent};
use crate::counters::{Counters, QueueCounters};
use crate::pair::{Pair, Progress};
use crate::worker::{Task, Watch, Worker, lock, readable};
use crate::{control, feature};

/// Entries of a queue, at most. Drivers fill receive queues with buffers of 64 KiB, so that more would cost small guests
/// much memory.
pub const QUEUE_SIZE: u16 = 256;
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
        /// How many pairs there were to be.
        pairs: u16,
        /// How many backends there are.
        backends: usize,
    },
    /// The host cannot do it.
    #[error("a network card's {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// The other side of a card.
pub enum Side {
    /// A backend for each queue pair, driven by a thread each.
    Backends(Vec<Box<dyn Backend>>),
    /// Somebody who works on the queues by itself.
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

/// What a pair's thread works on.
struct Lane {
    backend: Box<dyn Backend>,
    live: Option<Live>,
}

struct Live {
    index: u16,
    pair: Pair,
    /// The first pair answers commands, too.
    control: Option<Queue>,
    notifier: Arc<Notifier>,
}

/// What all threads of a card share.
struct Shared {
    config: NetConfig,
    counters: Counters,
    lanes: Vec<Mutex<Lane>>,
    /// Wakes a pair's thread for another turn.
    wakes: Vec<Event>,
    engine: Mutex<Option<Box<dyn Engine>>>,
    /// Events of an engine's queues, for interrupts that it cannot raise by itself.
    calls: Vec<Event>,
    engine_session: Mutex<Option<(Session, Option<Queue>)>>,
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
        let data_queues = pairs.saturating_mul(2);
        let events = |count| (0..count).map(|_| Event::new()).collect::<io::Result<Vec<_>>>();
        let host = |source| Error::Host { what: "events", source };
        let shared = Shared {
            config,
            counters: Counters::new(pairs),
            wakes: events(backends.len()).map_err(host)?,
            calls: events(if engine.is_some() { data_queues.into() } else { 0 }).map_err(host)?,
            lanes: backends.into_iter().map(|backend| Mutex::new(Lane { backend, live: None })).collect(),
            engine: Mutex::new(engine),
            engine_session: Mutex::new(None),
            pairs_in_use: AtomicU16::new(1),
            link_up: AtomicBool::new(true),
        };
        // And the control queue.
        let queue_sizes = vec![QUEUE_SIZE; usize::from(data_queues.saturating_add(1))];
        Ok(Self { shared: Arc::new(shared), queue_sizes, workers: Mutex::new(Vec::new()) })
    }

    /// Starts the card's threads: one for each queue pair. `notifier` and `kicks` are those of the card's transport.
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

    /// What it has done. An [`Engine`]'s queues are not counted.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Whether an [`Engine`] works on its queues.
    pub fn has_engine(&self) -> bool {
        !self.shared.calls.is_empty()
    }

    /// What it is.
    pub fn config(&self) -> &NetConfig {
        &self.shared.config
    }

    /// Says whether the link is up; the driver sees that. Returns whether that is new, for [`Notifier::config_changed`].
    pub fn set_link(&self, up: bool) -> bool {
        self.shared.link_up.swap(up, Ordering::AcqRel) != up
    }

    fn control_index(&self, features: u64) -> u16 {
        // Without MQ there is one pair, and the control queue follows it (5.1.2).
        let pairs = if features & feature::MQ != 0 { self.shared.config.pairs } else { 1 };
        pairs.saturating_mul(2)
    }

    fn control(&self, session: &Session) -> Result<Option<Queue>, StartError> {
        if session.features & feature::CTRL_VQ == 0 {
            return Ok(None);
        }
        match session.queue(self.control_index(session.features)) {
            // Some drivers accept the feature and never set the queue up.
            Err(StartError::QueueMissing(_)) => Ok(None),
            other => other.map(Some),
        }
    }

    fn start_pairs(&self, session: &Session) -> Result<(), StartError> {
        let pairs = if session.features & feature::MQ != 0 { self.shared.config.pairs } else { 1 };
        for (index, lane) in (0..).zip(&self.shared.lanes) {
            let rx = u16::saturating_mul(index, 2);
            let queues =
                session.queue(rx).and_then(|queue| Ok((queue, session.queue(rx.saturating_add(1))?)));
            let queues = match queues {
                Ok(queues) if index < pairs => Some(queues),
                // All but the first pair are the driver's choice.
                Err(error) if index == 0 => return Err(error),
                _ => None,
            };
            let mut lane = lock(lane);
            let host = |what| move |source| StartError::Host { what, source };
            lane.backend.set_features(session.features).map_err(host("setting a network backend up"))?;
            if let Err(error) = lane.backend.set_enabled(index == 0) {
                log::warn!("queue pair {index} of a network card: {error}");
            }
            let Some((rx, tx)) = queues else { continue };
            lane.live = Some(Live {
                index,
                pair: Pair::new(rx, tx, session.features, self.shared.config.mtu),
                control: if index == 0 { self.control(session)? } else { None },
                notifier: session.notifier.clone(),
            });
        }
        for wake in &self.shared.wakes {
            wake.signal();
        }
        Ok(())
    }
}

impl Device for Net {
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
        config_bytes(&self.shared.config.bytes(self.shared.link_up.load(Ordering::Acquire)), offset, width)
    }

    fn start(&self, session: Session) -> Result<(), StartError> {
        self.shared.pairs_in_use.store(1, Ordering::Release);
        let mut engine = lock(&self.shared.engine);
        let Some(engine) = engine.as_mut() else { return self.start_pairs(&session) };
        session.queue(0)?;
        session.queue(1)?;
        let control = self.control(&session)?;
        engine
            .start(&session, &self.shared.calls)
            .map_err(|source| StartError::Host { what: "handing queues to the host's kernel", source })?;
        *lock(&self.shared.engine_session) = Some((session, control));
        Ok(())
    }

    fn stop(&self) {
        if let Some(engine) = lock(&self.shared.engine).as_mut() {
            engine.stop();
        }
        *lock(&self.shared.engine_session) = None;
        for lane in &self.shared.lanes {
            lock(lane).live = None;
        }
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

/// Sources of a thread.
const RX_KICK: u32 = 0;
const TX_KICK: u32 = 1;
const BACKEND: u32 = 2;
const WAKE: u32 = 3;
const LOWERED: u32 = 4;
const CONTROL: u32 = 5;
/// An engine's queues follow.
const CALL: u32 = 16;

/// The thread of a queue pair.
struct PairTask {
    shared: Arc<Shared>,
    index: usize,
    notifier: Arc<Notifier>,
    kicks: Arc<[Event]>,
}

impl PairTask {
    fn kick(&self, offset: usize) -> Option<&Event> {
        self.kicks.get(self.index.checked_mul(2)?.checked_add(offset)?)
    }

    fn wake(&self) -> Option<&Event> {
        self.shared.wakes.get(self.index)
    }
}

impl Task for PairTask {
    fn sources(&self) -> Vec<(i32, Watch, u32)> {
        let mut sources = Vec::new();
        let events = [(self.kick(0), RX_KICK), (self.kick(1), TX_KICK), (self.wake(), WAKE)];
        for (event, number) in events {
            sources.extend(event.map(|event| readable(event.as_fd(), number)));
        }
        if let Some(lane) = self.shared.lanes.get(self.index) {
            sources.push((lock(lane).backend.fd().as_raw_fd(), Watch::Edges, BACKEND));
        }
        if self.index == 0 {
            sources.push(readable(self.notifier.lowered().as_fd(), LOWERED));
            // Which one is the control queue depends on the features; the last can only be that.
            let pairs = usize::from(self.shared.config.pairs);
            sources.extend(
                self.kicks.get(pairs.saturating_mul(2)).map(|event| readable(event.as_fd(), CONTROL)),
            );
        }
        sources
    }

    fn ready(&mut self, number: u32) {
        match number {
            RX_KICK => drop(self.kick(0).map(Event::take)),
            TX_KICK => drop(self.kick(1).map(Event::take)),
            WAKE => drop(self.wake().map(Event::take)),
            CONTROL => drop(self.kicks.last().map(Event::take)),
            LOWERED => return self.notifier.resample(),
            _ => {}
        }
        let Some(lane) = self.shared.lanes.get(self.index) else { return };
        let mut lane = lock(lane);
        let Lane { backend, live } = &mut *lane;
        let Some(live) = live else {
            // Without MQ, the control queue has the number that the second pair's first queue has otherwise (5.1.2).
            if (self.index, number) == (1, RX_KICK) {
                self.shared.wakes.first().into_iter().for_each(Event::signal);
            }
            return;
        };
        if live.notifier.has_failed() {
            return;
        }
        let counted = match number {
            RX_KICK => Some(0),
            TX_KICK => Some(1),
            _ => None,
        };
        if let Some(offset) = counted
            && let Some(counters) =
                self.shared.counters.queue(live.index.saturating_mul(2).saturating_add(offset))
        {
            counters.kick();
        }
        let mut pairs_wanted = None;
        match live.turn(backend.as_mut(), &self.shared, number, &mut pairs_wanted) {
            Ok(Progress::Idle) => {}
            // Others get their turn first.
            Ok(Progress::More) => drop(self.wake().map(Event::signal)),
            Err(error) => {
                log::warn!("the guest's network driver: {error}; the card needs a reset");
                live.notifier.fail();
            }
        }
        drop(lane);
        if let Some(pairs) = pairs_wanted {
            self.shared.enable_pairs(pairs);
        }
    }
}

impl Live {
    fn turn(
        &mut self,
        backend: &mut dyn Backend,
        shared: &Shared,
        number: u32,
        pairs_wanted: &mut Option<u16>,
    ) -> Result<Progress, QueueError> {
        let rx = self.index.saturating_mul(2);
        let tx = rx.saturating_add(1);
        let (Some(rx_counters), Some(tx_counters)) = (shared.counters.queue(rx), shared.counters.queue(tx))
        else {
            return Ok(Progress::Idle);
        };
        let mut progress = Progress::Idle;
        if number != RX_KICK {
            let (interrupt, next) = self.pair.transmit(backend, tx_counters)?;
            self.interrupt(interrupt, tx, tx_counters);
            if next == Progress::More {
                progress = next;
            }
        }
        if number != TX_KICK {
            let (interrupt, next) = self.pair.receive(backend, rx_counters)?;
            self.interrupt(interrupt, rx, rx_counters);
            if next == Progress::More {
                progress = next;
            }
        }
        if let Some(control) = &mut self.control
            && matches!(number, CONTROL | WAKE)
        {
            let most = shared.config.pairs;
            let wants = control::serve(control, |pairs| {
                let fits = (1..=most).contains(&pairs);
                if fits {
                    *pairs_wanted = Some(pairs);
                }
                fits
            })?;
            let index = control.index();
            if wants {
                self.notifier.queue(index);
            }
        }
        Ok(progress)
    }

    fn interrupt(&self, wanted: bool, queue: u16, counters: &QueueCounters) {
        if wanted && self.notifier.queue(queue) {
            counters.interrupt();
        }
    }
}

impl Shared {
    fn enable_pairs(&self, pairs: u16) {
        let before = self.pairs_in_use.swap(pairs, Ordering::AcqRel);
        if before == pairs {
            return;
        }
        for (index, lane) in (0..).zip(&self.lanes) {
            if let Err(error) = lock(lane).backend.set_enabled(index < pairs) {
                log::warn!("queue pair {index} of a network card: {error}");
            }
        }
        for wake in &self.wakes {
            wake.signal();
        }
    }
}

/// The thread of a card whose queues somebody else works on: passes interrupts on, and answers commands.
struct EngineTask {
    shared: Arc<Shared>,
    notifier: Arc<Notifier>,
    kicks: Arc<[Event]>,
}

impl Task for EngineTask {
    fn sources(&self) -> Vec<(i32, Watch, u32)> {
        let mut sources = vec![readable(self.notifier.lowered().as_fd(), LOWERED)];
        sources.extend(self.kicks.last().map(|event| readable(event.as_fd(), CONTROL)));
        let calls = (CALL..).zip(&self.shared.calls);
        sources.extend(calls.map(|(number, call)| readable(call.as_fd(), number)));
        sources
    }

    fn ready(&mut self, number: u32) {
        if number == LOWERED {
            return self.notifier.resample();
        }
        if number == CONTROL {
            self.kicks.last().map(Event::take);
            return self.control();
        }
        let Some(queue) = number.checked_sub(CALL).and_then(|queue| u16::try_from(queue).ok()) else {
            return;
        };
        if self.shared.calls.get(usize::from(queue)).is_some_and(Event::take)
            && self.notifier.queue(queue)
            && let Some(counters) = self.shared.counters.queue(queue)
        {
            counters.interrupt();
        }
    }
}

impl EngineTask {
    fn control(&self) {
        let mut held = lock(&self.shared.engine_session);
        let Some((session, Some(control))) = held.as_mut() else { return };
        let mut wanted = None;
        let most = self.shared.config.pairs;
        let served = control::serve(control, |pairs| {
            let fits = (1..=most).contains(&pairs);
            if fits {
                wanted = Some(pairs);
            }
            fits
        });
        match served {
            Ok(true) => drop(session.notifier.queue(control.index())),
            Ok(false) => {}
            Err(error) => {
                log::warn!("the guest's network driver: {error}; the card needs a reset");
                session.notifier.fail();
            }
        }
        // Whoever starts or stops takes the engine first.
        drop(held);
        if let Some(pairs) = wanted {
            let mut engine = lock(&self.shared.engine);
            if let Some(Err(error)) = engine.as_mut().map(|engine| engine.set_pairs(pairs)) {
                log::warn!("{pairs} queue pairs of a network card: {error}");
            }
        }
    }
}
