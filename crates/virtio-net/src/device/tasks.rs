//! Threads of a network card: one for each queue pair, and one for an engine.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nerite_virtio::{Causes, Event, LogBudget, Notifier, QueueError, lock};

use super::unplugged::Unplugged;
use super::{EngineState, Lane, Live, Shared};
use crate::backend::{Backend, Engine};
use crate::control;
use crate::counters::QueueCounters;
use crate::pair::Progress;
use crate::worker::{Task, Watch, readable};

/// Sources of a thread.
const RX_KICK: u32 = 0;
const TX_KICK: u32 = 1;
const BACKEND: u32 = 2;
const WAKE: u32 = 3;
const LOWERED: u32 = 4;
const CONTROL: u32 = 5;
const BROKEN: u32 = 6;
const LINK: u32 = 7;
/// An engine's queues follow.
const CALL: u32 = 16;

/// The thread of a queue pair.
pub(super) struct PairTask {
    pub(super) shared: Arc<Shared>,
    pub(super) index: usize,
    pub(super) notifier: Arc<Notifier>,
    pub(super) kicks: Arc<[Event]>,
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
                self.kicks
                    .get(pairs.saturating_mul(2))
                    .map(|event| readable(event.as_fd(), CONTROL)),
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
        let Lane { backend, live, is_paused } = &mut *lane;
        let Some(live) = live else {
            // Without MQ, the control queue has the number that the second pair's first queue has
            // otherwise (5.1.2).
            if (self.index, number) == (1, RX_KICK) {
                self.shared.wakes.first().into_iter().for_each(Event::signal);
            }
            return;
        };
        if *is_paused || live.notifier.has_failed() {
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
        let mut unplugged = Unplugged(backend.as_mut());
        let is_up = self.shared.link_up.load(Ordering::Acquire);
        let backend = if is_up { &mut *unplugged.0 } else { &mut unplugged };
        match live.turn(backend, &self.shared, number, &mut pairs_wanted) {
            Ok(Progress::Idle) => {}
            // Others get their turn first.
            Ok(Progress::More) => drop(self.wake().map(Event::signal)),
            Err(error) => {
                let error = Causes(&error);
                live.log.warn(format_args!(
                    "the guest's network driver: {error}; the card needs a reset"
                ));
                live.notifier.fail();
            }
        }
        let log = live.log.clone();
        drop(lane);
        if let Some(pairs) = pairs_wanted {
            self.shared.enable_pairs(pairs, &log);
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
        let (Some(rx_counters), Some(tx_counters)) =
            (shared.counters.queue(rx), shared.counters.queue(tx))
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
        if number != TX_KICK || backend.has_frames() {
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
    /// Tells an engine whether the link is up.
    pub(super) fn tell_engine(&self, engine: &mut Option<Box<dyn Engine>>) {
        let up = self.link_up.load(Ordering::Acquire);
        // An operator's doing, not the guest's.
        if let Some(Err(error)) = engine.as_mut().map(|engine| engine.set_link(up)) {
            log::warn!("the link of a network card: {error}");
        }
    }

    /// Pauses or resumes all queues.
    pub(super) fn set_paused(&self, is_paused: bool) {
        if let Some(engine) = lock(&self.engine).as_mut() {
            let set = engine.set_paused(is_paused);
            let mut state = lock(&self.engine_state);
            state.is_paused = is_paused;
            if let (Err(error), Some((activation, _))) = (set, &state.live) {
                activation
                    .log
                    .warn(format_args!("the queues of a network card: {error}; it needs a reset"));
                activation.notifier.fail();
            }
            // For commands that came meanwhile.
            self.control_wake.signal();
        }
        for lane in &self.lanes {
            lock(lane).is_paused = is_paused;
        }
        if !is_paused {
            self.wakes.iter().for_each(Event::signal);
        }
    }

    fn enable_pairs(&self, pairs: u16, log: &LogBudget) {
        let before = self.pairs_in_use.swap(pairs, Ordering::AcqRel);
        if before == pairs {
            return;
        }
        for (index, lane) in (0..).zip(&self.lanes) {
            if let Err(error) = lock(lane).backend.set_enabled(index < pairs) {
                log.warn(format_args!("queue pair {index} of a network card: {error}"));
            }
        }
        for wake in &self.wakes {
            wake.signal();
        }
    }
}

/// The thread of a card with an engine: passes interrupts on, and executes commands.
pub(super) struct EngineTask {
    pub(super) shared: Arc<Shared>,
    pub(super) notifier: Arc<Notifier>,
    pub(super) kicks: Arc<[Event]>,
}

impl Task for EngineTask {
    fn sources(&self) -> Vec<(i32, Watch, u32)> {
        let mut sources = vec![
            readable(self.notifier.lowered().as_fd(), LOWERED),
            readable(self.shared.broken.as_fd(), BROKEN),
            readable(self.shared.link_changed.as_fd(), LINK),
            readable(self.shared.control_wake.as_fd(), WAKE),
        ];
        sources.extend(self.kicks.last().map(|event| readable(event.as_fd(), CONTROL)));
        let calls = (CALL..).zip(&self.shared.calls);
        sources.extend(calls.map(|(number, call)| readable(call.as_fd(), number)));
        sources
    }

    fn ready(&mut self, number: u32) {
        if number == LOWERED {
            return self.notifier.resample();
        }
        if number == BROKEN {
            return self.give_up();
        }
        if number == LINK {
            self.shared.link_changed.take();
            return self.shared.tell_engine(&mut lock(&self.shared.engine));
        }
        if number == CONTROL {
            self.kicks.last().map(Event::take);
            return self.control();
        }
        if number == WAKE {
            self.shared.control_wake.take();
            return self.control();
        }
        let Some(queue) = number.checked_sub(CALL).and_then(|queue| u16::try_from(queue).ok())
        else {
            return;
        };
        if self.shared.calls.get(usize::from(queue)).is_some_and(Event::take)
            && !self.notifier.has_failed()
            && self.notifier.queue(queue)
            && let Some(counters) = self.shared.counters.queue(queue)
        {
            counters.interrupt();
        }
    }
}

impl EngineTask {
    /// The driver has broken a rule of a queue: the queues rest until it has reset the card.
    fn give_up(&self) {
        let mut engine = lock(&self.shared.engine);
        // A reset may have come first, and taken the signal with it.
        if !self.shared.broken.take() {
            return;
        }
        if let Some(engine) = engine.as_mut() {
            engine.stop();
        }
        if let Some((activation, _)) = lock(&self.shared.engine_state).live.take() {
            let message =
                "the guest's network driver has broken a rule of a queue; the card needs a reset";
            activation.log.warn(format_args!("{message}"));
        }
        self.notifier.fail();
    }

    fn control(&self) {
        let mut held = lock(&self.shared.engine_state);
        let EngineState { live: Some((activation, Some(control))), is_paused: false } = &mut *held
        else {
            return;
        };
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
            Ok(true) => drop(activation.notifier.queue(control.index())),
            Ok(false) => {}
            Err(error) => {
                let (log, error) = (&activation.log, Causes(&error));
                log.warn(format_args!(
                    "the guest's network driver: {error}; the card needs a reset"
                ));
                // The thread's next turn takes the queues back.
                return self.shared.broken.signal();
            }
        }
        let log = activation.log.clone();
        // The thread that starts or stops the card takes the engine first.
        drop(held);
        if let Some(pairs) = wanted {
            self.shared.pairs_in_use.store(pairs, Ordering::Release);
            let mut engine = lock(&self.shared.engine);
            if let Some(Err(error)) = engine.as_mut().map(|engine| engine.set_pairs(pairs)) {
                log.warn(format_args!("{pairs} queue pairs of a network card: {error}"));
            }
        }
    }
}
