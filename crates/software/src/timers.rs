//! The thread that waits for a VM's shared timer and for kicks at a time.

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nerite_hypervisor::{Kick as _, KickTimer};
use parking_lot::{Condvar, Mutex};

use crate::signal::Signal;

/// A kick at a time.
#[derive(Debug, Clone, Copy, Default)]
struct Alarm {
    next: Option<Instant>,
    interval: Duration,
}

#[derive(Debug)]
struct KickAlarm {
    alarm: Mutex<Alarm>,
    signal: Arc<Signal>,
}

#[derive(Default)]
struct State {
    /// The next moment of the shared timer, which has its own idea of time.
    board: Option<Instant>,
    alarms: Vec<Weak<KickAlarm>>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The thread and its work. It ends when this is dropped.
pub(crate) struct Timers {
    shared: Arc<Shared>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").finish_non_exhaustive()
    }
}

impl Timers {
    /// Starts the thread. `advance` moves the shared timer on and returns its next moment.
    pub(crate) fn start(
        mut advance: impl FnMut() -> Option<Instant> + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = thread::Builder::new().name("timers".to_owned()).spawn(move || {
            let mut state = own.state.lock();
            while !state.ended {
                let now = Instant::now();
                if state.board.is_some_and(|board| board <= now) {
                    state.board = None;
                    // Interrupts are sent without the lock: vCPUs take it when they set timers.
                    parking_lot::MutexGuard::unlocked(&mut state, || {
                        let next = advance();
                        let mut state = own.state.lock();
                        state.board = earlier(state.board, next);
                    });
                    continue;
                }
                let next = state.kick_due(now);
                match earlier(next, state.board) {
                    Some(next) => drop(own.changed.wait_until(&mut state, next)),
                    None => own.changed.wait(&mut state),
                }
            }
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Sets the next moment of the shared timer.
    pub(crate) fn set_board(&self, next: Option<Instant>) {
        self.shared.state.lock().board = next;
        self.shared.changed.notify_one();
    }

    /// A timer that kicks a vCPU.
    pub(crate) fn kick_timer(&self, signal: Arc<Signal>) -> Box<dyn KickTimer> {
        let alarm = Arc::new(KickAlarm { alarm: Mutex::default(), signal });
        self.shared.state.lock().alarms.push(Arc::downgrade(&alarm));
        Box::new(Handle { alarm, shared: self.shared.clone() })
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            // It can only have panicked, which it has reported itself.
            let _ = thread.join();
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl State {
    /// Kicks the vCPUs whose time has come. Returns the next moment of the others.
    fn kick_due(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        self.alarms.retain(|weak| {
            let Some(kick) = weak.upgrade() else { return false };
            let mut alarm = kick.alarm.lock();
            if alarm.next.is_some_and(|moment| moment <= now) {
                kick.signal.kick();
                let again =
                    (!alarm.interval.is_zero()).then(|| now.checked_add(alarm.interval)).flatten();
                alarm.next = again;
            }
            next = earlier(next, alarm.next);
            true
        });
        next
    }
}

struct Handle {
    alarm: Arc<KickAlarm>,
    shared: Arc<Shared>,
}

impl Handle {
    fn store(&self, alarm: Alarm) {
        *self.alarm.alarm.lock() = alarm;
        // The thread looks at alarms under the lock of its state: it sees this one now or next.
        drop(self.shared.state.lock());
        self.shared.changed.notify_one();
    }
}

impl KickTimer for Handle {
    fn set(&self, first: Duration, interval: Duration) -> io::Result<()> {
        self.store(Alarm { next: Instant::now().checked_add(first), interval });
        Ok(())
    }

    fn stop(&self) -> io::Result<()> {
        self.store(Alarm::default());
        Ok(())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KickTimer").field("alarm", &self.alarm).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kick_comes_once_and_again_with_an_interval() {
        let timers = Timers::start(|| None).unwrap();
        let signal = Arc::new(Signal::default());
        let timer = timers.kick_timer(signal.clone());
        let kicked = || {
            while !signal.take_kick() {
                signal.wait(None);
                signal.looked();
            }
        };
        timer.set(Duration::from_millis(1), Duration::ZERO).unwrap();
        kicked();
        timer.set(Duration::ZERO, Duration::from_millis(1)).unwrap();
        (0..3).for_each(|_| kicked());
        timer.stop().unwrap();
    }

    #[test]
    fn the_shared_timer_is_advanced_when_its_time_comes() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut left = 3;
        let timers = Timers::start(move || {
            sender.send(()).unwrap();
            left -= 1;
            (left > 0).then(Instant::now)
        })
        .unwrap();
        timers.set_board(Some(Instant::now()));
        (0..3).for_each(|_| receiver.recv().unwrap());
        drop(timers);
        assert!(receiver.recv().is_err(), "the thread has ended");
    }
}
