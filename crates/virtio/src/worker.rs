//! The thread of a device that works on its queues by itself.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::{Event, Notifier};

/// What a thread does before anything else, such as giving up rights.
pub type Enter = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// What wakes a device's thread.
#[derive(Debug, Clone)]
pub struct Wakes {
    /// The driver's notifications.
    pub kicks: Arc<[Event]>,
    /// The device's interrupts: a pin that the guest has lowered may have to be raised again.
    pub notifier: Arc<Notifier>,
    /// Everything else.
    pub other: Arc<Event>,
}

/// A thread that works whenever there may be something to do. It ends when this is dropped.
pub struct Worker {
    stop: Arc<Event>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread that calls `enter` once and then `turn` each time that something has woken it, and for as long as `turn`
    /// returns that there is more to do.
    ///
    /// `turn` should do little, such as one request: the thread ends only between two of them.
    ///
    /// # Errors
    /// If the host has no thread or descriptor left, or `enter` fails.
    pub fn start(
        name: String,
        enter: Enter,
        wakes: Wakes,
        mut turn: impl FnMut() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(Event::new()?);
        let stopped = stop.clone();
        let (entered, answer) = sync_channel(1);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let ready = enter();
            let goes_on = ready.is_ok();
            // Whoever started this thread is waiting.
            let _ = entered.send(ready);
            if goes_on && let Err(error) = work(&stopped, &wakes, &mut turn) {
                log::error!("a device's thread cannot wait: {error}");
            }
        })?;
        let worker = Self { stop, thread: Some(thread) };
        answer.recv().map_err(|_| io::Error::other("a device's thread panicked"))??;
        Ok(worker)
    }
}

fn work(stop: &Event, wakes: &Wakes, turn: &mut impl FnMut() -> bool) -> io::Result<()> {
    let mut has_more = false;
    loop {
        let events = [stop, wakes.notifier.lowered(), &*wakes.other].into_iter().chain(wakes.kicks.iter());
        let mut polled: Vec<_> =
            events.map(|event| PollFd::from_borrowed_fd(event.as_fd(), PollFlags::IN)).collect();
        let timeout = has_more.then(Timespec::default);
        match poll(&mut polled, timeout.as_ref()) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let is_ready = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
        if is_ready(0) {
            return Ok(());
        }
        if is_ready(1) {
            wakes.notifier.resample();
        }
        // What comes after this wakes the thread again.
        wakes.other.take();
        for (kick, at) in wakes.kicks.iter().zip(3..) {
            if is_ready(at) {
                kick.take();
            }
        }
        has_more = turn();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.signal();
        if let Some(thread) = self.thread.take() {
            // A panic was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// A lock that a panic elsewhere does not take from us: what is behind it is whole between any two requests.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    fn wakes() -> Wakes {
        let events = |count| (0..count).map(|_| Event::new().unwrap()).collect::<Arc<[Event]>>();
        let notifier = Arc::new(Notifier::new(2, events(3)).unwrap());
        Wakes { kicks: events(2), notifier, other: Arc::new(Event::new().unwrap()) }
    }

    fn reach(count: &AtomicU32, wanted: u32) {
        let began = Instant::now();
        while count.load(Ordering::Acquire) < wanted {
            assert!(began.elapsed() < Duration::from_secs(10), "the thread does not wake");
            std::thread::yield_now();
        }
    }

    #[test]
    fn every_event_wakes_and_more_work_needs_none() {
        let (wakes, count) = (wakes(), Arc::new(AtomicU32::new(0)));
        let turns = count.clone();
        // Every third turn is the last one in a row.
        let turn = move || !(turns.fetch_add(1, Ordering::AcqRel) + 1).is_multiple_of(3);
        let worker = Worker::start("test".to_owned(), Box::new(|| Ok(())), wakes.clone(), turn).unwrap();
        wakes.kicks[1].signal();
        reach(&count, 3);
        wakes.other.signal();
        reach(&count, 6);
        wakes.notifier.lowered().signal();
        reach(&count, 9);
        drop(worker);
        wakes.kicks[0].signal();
        assert_eq!(count.load(Ordering::Acquire), 9);
    }

    #[test]
    fn a_thread_that_cannot_enter_does_not_work() {
        let enter = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        let result = Worker::start("test".to_owned(), Box::new(enter), wakes(), || panic!("it works"));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
