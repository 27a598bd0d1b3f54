//! Pausing, inspecting and resuming a vCPU from any thread.
//!
//! The vCPU's own thread reads its inbox only after a kick, so an exit without a request costs
//! three plain stores. Two rules make kicks exact:
//!
//! * a request is put into the inbox *before* the kick, under the inbox's lock: a thread that sees
//!   the kick sees the request;
//! * a kick is sent only while the vCPU does not read its inbox, and taken back when it begins to:
//!   so none is left over for the next run.

use std::collections::VecDeque;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::sync::{AtomicU8, Condvar, Mutex, MutexGuard, Ordering};
use nerite_hypervisor::{Kicker, Vcpu};

use crate::RunState;

/// A kicked vCPU can be on its way into a host call that waits: it is kicked again after this time.
const KICK_AGAIN: Duration = Duration::from_millis(10);

/// The longest that a vCPU rests without looking around.
const LONG_REST: Duration = Duration::from_secs(60);

/// Something to do on a vCPU's thread, with the vCPU held. The state says whether it may be
/// changed.
pub type Job = Box<dyn FnOnce(&mut dyn Vcpu, RunState) + Send>;

/// Requests to a vCPU.
#[derive(Default)]
struct Inbox {
    /// Number of holds.
    holds: u32,
    jobs: VecDeque<Job>,
    stop: bool,
    /// `true` if the vCPU's thread is in [`Control::service_requests`].
    attending: bool,
    /// `true` if it is in [`Control::wait_for_interrupt`].
    resting: bool,
    /// `true` if the vCPU's thread is gone.
    gone: bool,
    /// Number of threads that wait for a change: with none, waking takes no system call.
    waiting: u32,
}

/// Pausing, inspecting and stopping one vCPU. Shared between its thread and all others.
pub struct Control {
    state: AtomicU8,
    inbox: Mutex<Inbox>,
    /// Signalled when the inbox or the state changed.
    changed: Condvar,
    kicker: OnceLock<Kicker>,
}

/// End of a vCPU's wait after HLT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum HaltWait {
    /// There is an interrupt, or the time is over.
    Interrupt,
    /// There is a request: [`Control::service_requests`] is next.
    Request,
}

/// State in which a vCPU is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// With nothing half done: its state may be read, saved and changed.
    Paused,
    /// With an access unanswered: jobs run, and may read its state.
    InService,
    /// Its thread waits for the host in a service and cannot be asked. It executes no instruction
    /// before it is released.
    Busy,
    /// It is gone.
    Stopped,
}

/// Reason why a job was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The vCPU has stopped.
    #[error("the vCPU has stopped")]
    Stopped,
    /// The vCPU's thread waits for the host.
    #[error("the vCPU waits for the host in a service and did not answer in time")]
    Busy,
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

impl Control {
    /// The control of a vCPU that no thread has run yet.
    pub fn new() -> Self {
        Self {
            state: AtomicU8::new(RunState::Created as u8),
            inbox: Mutex::new(Inbox::default()),
            changed: Condvar::new(),
            kicker: OnceLock::new(),
        }
    }

    /// Says how the vCPU is kicked. Before its thread starts; the first one counts.
    pub fn set_kicker(&self, kicker: Kicker) {
        // A second kicker would be for the same vCPU.
        let _ = self.kicker.set(kicker);
    }

    /// State of the vCPU now, or a moment ago.
    pub fn state(&self) -> RunState {
        RunState::from_u8(self.state.load(Ordering::Acquire))
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // What is behind this lock is whole at every moment: jobs run without it.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets the vCPU's thread to look into the inbox, which the caller has locked and changed.
    fn call(&self, inbox: &Inbox) {
        if inbox.attending || inbox.resting {
            self.notify(inbox);
        } else if let Some(kicker) = self.kicker.get() {
            kicker.kick();
        }
    }

    /// Wants the vCPU to be held, once more. Does not wait for it; see [`Control::wait_held`].
    pub fn hold(&self) {
        let mut inbox = self.lock();
        inbox.holds = inbox.holds.saturating_add(1);
        self.call(&inbox);
    }

    /// Takes back one [`Control::hold`]. The vCPU resumes when all are taken back.
    pub fn release(&self) {
        let mut inbox = self.lock();
        inbox.holds = inbox.holds.saturating_sub(1);
        self.notify(&inbox);
    }

    /// Waits until a vCPU that is wanted to be held is, and says how. `patience` is for one that
    /// waits for the host.
    pub fn wait_held(&self, patience: Duration) -> Held {
        let deadline = Instant::now().checked_add(patience);
        let mut inbox = self.lock();
        loop {
            if inbox.gone {
                return Held::Stopped;
            }
            if inbox.attending {
                match self.state() {
                    RunState::Paused => return Held::Paused,
                    RunState::InService => return Held::InService,
                    // It has not seen this hold yet.
                    _ => {}
                }
            }
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if late && self.state() == RunState::InService {
                return Held::Busy;
            }
            inbox = self.wait(inbox, true);
        }
    }

    /// Waits for a change of the inbox or of the state.
    fn wait<'a>(&'a self, inbox: MutexGuard<'a, Inbox>, kick_again: bool) -> MutexGuard<'a, Inbox> {
        let (inbox, timed_out) = self.await_change(inbox, Some(KICK_AGAIN));
        if kick_again && timed_out {
            self.call(&inbox);
        }
        inbox
    }

    /// Waits until [`Control::notify`], or for so long. Says whether the time was over.
    fn await_change<'a>(
        &'a self,
        mut inbox: MutexGuard<'a, Inbox>,
        limit: Option<Duration>,
    ) -> (MutexGuard<'a, Inbox>, bool) {
        inbox.waiting = inbox.waiting.saturating_add(1);
        let (mut inbox, timed_out) = match limit {
            None => (self.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner), false),
            Some(limit) => {
                let waited = self.changed.wait_timeout(inbox, limit);
                let (inbox, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                (inbox, timeout.timed_out())
            }
        };
        inbox.waiting = inbox.waiting.saturating_sub(1);
        (inbox, timed_out)
    }

    /// Wakes all that wait for a change, which the caller has made under the lock.
    fn notify(&self, inbox: &Inbox) {
        if inbox.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// Has a job done on the vCPU's thread at the next moment at which nothing is half done, or
    /// while the vCPU waits for the host. Does not wait for it. A vCPU that has stopped drops the
    /// job.
    pub fn post(&self, job: Job) {
        let mut inbox = self.lock();
        if !inbox.gone {
            inbox.jobs.push_back(job);
            self.call(&inbox);
        }
    }

    /// Has `question` answered on the vCPU's thread and waits for the answer.
    ///
    /// # Errors
    /// If the vCPU has stopped, or waits for the host for longer than `patience`; then the question
    /// is not asked any more.
    #[cfg(not(loom))]
    pub fn ask<T: Send + 'static>(
        &self,
        patience: Duration,
        question: impl FnOnce(&mut dyn Vcpu, RunState) -> T + Send + 'static,
    ) -> Result<T, AskError> {
        use std::sync::Arc;
        use std::sync::mpsc::{RecvTimeoutError, sync_channel};
        let (sender, receiver) = sync_channel(1);
        // The first of two takes it: the vCPU's thread, to answer it, or this one, to give up.
        let question = Arc::new(parking_lot::Mutex::new(Some(question)));
        let shared = question.clone();
        self.post(Box::new(move |vcpu, state| {
            let question = shared.lock().take();
            if let Some(question) = question {
                // There is room for the one answer.
                let _ = sender.send(question(vcpu, state));
            }
        }));
        let start = Instant::now();
        loop {
            match receiver.recv_timeout(KICK_AGAIN) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(AskError::Stopped),
                Err(RecvTimeoutError::Timeout) => {
                    let inbox = self.lock();
                    // One that is not in a service answers as soon as the host lets it run.
                    let waits = self.state() == RunState::InService && !inbox.attending;
                    if waits && start.elapsed() > patience && question.lock().take().is_some() {
                        return Err(AskError::Busy);
                    }
                    self.call(&inbox);
                }
            }
        }
    }

    /// Makes the vCPU leave its loop. Does not wait for it.
    pub fn stop(&self) {
        let mut inbox = self.lock();
        inbox.stop = true;
        self.call(&inbox);
    }

    /// The vCPU's thread: it is about to enter the guest.
    pub fn entering(&self) {
        self.state.store(RunState::Running as u8, Ordering::Release);
    }

    /// The vCPU's thread: an exit is being answered.
    pub fn serving(&self) {
        self.state.store(RunState::InService as u8, Ordering::Release);
    }

    /// The vCPU's thread: the answer is known.
    pub fn answered(&self) {
        self.state.store(RunState::ServiceToComplete as u8, Ordering::Release);
    }

    /// For the vCPU's thread: adds a hold, as at a breakpoint. The other side takes it back with
    /// [`Control::release`].
    pub fn hold_self(&self) {
        let mut inbox = self.lock();
        inbox.holds = inbox.holds.saturating_add(1);
    }

    /// The vCPU's thread, after a kick: does what is in the inbox, and stays here while the vCPU is
    /// to be held.
    ///
    /// `state` is [`RunState::Paused`] if nothing is half done, and [`RunState::InService`] if an
    /// exit waits for its answer.
    pub fn service_requests(&self, vcpu: &mut dyn Vcpu, state: RunState) -> ControlFlow<()> {
        let mut inbox = self.lock();
        // The request of every kick until now is in the inbox.
        vcpu.take_kick();
        inbox.attending = true;
        let attended = loop {
            if let Some(job) = inbox.jobs.pop_front() {
                drop(inbox);
                job(vcpu, state);
                inbox = self.lock();
            } else if inbox.stop {
                break ControlFlow::Break(());
            } else if inbox.holds == 0 {
                break ControlFlow::Continue(());
            } else {
                if self.state() != state {
                    self.state.store(state as u8, Ordering::Release);
                    self.notify(&inbox);
                }
                inbox = self.await_change(inbox, None).0;
            }
        };
        inbox.attending = false;
        let next = if state == RunState::Paused { RunState::Running } else { state };
        self.state.store(next as u8, Ordering::Release);
        attended
    }

    /// Gets the vCPU's thread to look whether there is an interrupt, wherever it is. Whatever it is
    /// to find must be there before.
    pub fn wake(&self) {
        let inbox = self.lock();
        if inbox.attending {
            // It checks before it resumes.
            return;
        }
        self.call(&inbox);
    }

    /// The vCPU's thread: the guest has halted. Waits until `is_woken`, which [`Control::wake`] has
    /// it ask anew, or until a time, or until there is something in the inbox.
    pub fn wait_for_interrupt(
        &self,
        until: Option<Instant>,
        mut is_woken: impl FnMut() -> bool,
    ) -> HaltWait {
        let mut inbox = self.lock();
        inbox.resting = true;
        self.state.store(RunState::Halted as u8, Ordering::Release);
        let rested = loop {
            if inbox.stop || inbox.holds > 0 || !inbox.jobs.is_empty() {
                break HaltWait::Request;
            }
            let now = Instant::now();
            if is_woken() || until.is_some_and(|until| now >= until) {
                break HaltWait::Interrupt;
            }
            let left = until
                .map_or(LONG_REST, |until| until.saturating_duration_since(now).min(LONG_REST));
            inbox = self.await_change(inbox, Some(left)).0;
        };
        inbox.resting = false;
        self.state.store(RunState::Running as u8, Ordering::Release);
        rested
    }

    /// The vCPU's thread: it has left its loop. Jobs that were not done are dropped.
    pub fn leave(&self) {
        let jobs = {
            let mut inbox = self.lock();
            inbox.gone = true;
            self.state.store(RunState::Stopped as u8, Ordering::Release);
            self.notify(&inbox);
            std::mem::take(&mut inbox.jobs)
        };
        drop(jobs);
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("state", &self.state()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
#[path = "control_test.rs"]
mod tests;
