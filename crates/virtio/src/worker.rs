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

/// First step of a thread, such as giving up rights.
pub type Enter = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// The thread of a device: it works whenever there may be something to do. It ends when this is
/// dropped.
///
/// Three things wake it: the driver's notifications, its interrupt line, which may have to be
/// raised again when the guest has lowered it, and the device itself, by [`Worker::wake`]. A device
/// may add a descriptor of its own, by [`Worker::run_with`].
pub struct Worker {
    name: &'static str,
    wake: Arc<Event>,
    thread: Mutex<Option<Thread>>,
}

/// A thread that runs. It ends when this is dropped.
struct Thread {
    stop: Arc<Event>,
    handle: Option<JoinHandle<()>>,
}

/// Sources that wake a thread.
struct Wakes {
    kicks: Arc<[Event]>,
    notifier: Arc<Notifier>,
    wake: Arc<Event>,
    source: Option<Arc<dyn AsFd + Send + Sync>>,
}

impl Worker {
    /// One that does not run yet. Its thread will be called `name`.
    ///
    /// # Errors
    /// If the process or the host has no descriptor left.
    pub fn new(name: &'static str) -> io::Result<Self> {
        Ok(Self { name, wake: Arc::new(Event::new()?), thread: Mutex::new(None) })
    }

    /// Starts the thread, which calls `enter` once, then `turn`, and that again each time that
    /// something has woken it, and for as long as it returns that there is more to do. If there is
    /// one already, that ends first. `notifier` and `kicks` are those of the device's transport.
    ///
    /// `turn` should do little, such as one request: the thread ends only between two of them.
    ///
    /// # Errors
    /// If the host has no thread or descriptor left, or `enter` fails.
    pub fn run(
        &self,
        notifier: &Arc<Notifier>,
        kicks: &Arc<[Event]>,
        enter: Enter,
        turn: impl FnMut() -> bool + Send + 'static,
    ) -> io::Result<()> {
        self.start(notifier, kicks, None, enter, turn)
    }

    /// As [`Self::run`], with one more descriptor that wakes the thread while it is readable, such
    /// as an epoll instance. Each turn makes it unreadable again.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_with(
        &self,
        notifier: &Arc<Notifier>,
        kicks: &Arc<[Event]>,
        source: Arc<dyn AsFd + Send + Sync>,
        enter: Enter,
        turn: impl FnMut() -> bool + Send + 'static,
    ) -> io::Result<()> {
        self.start(notifier, kicks, Some(source), enter, turn)
    }

    fn start(
        &self,
        notifier: &Arc<Notifier>,
        kicks: &Arc<[Event]>,
        source: Option<Arc<dyn AsFd + Send + Sync>>,
        enter: Enter,
        turn: impl FnMut() -> bool + Send + 'static,
    ) -> io::Result<()> {
        self.halt();
        // A thread before this one may have ended with something left to do.
        self.wake.signal();
        let (kicks, notifier, wake) = (kicks.clone(), notifier.clone(), self.wake.clone());
        let wakes = Wakes { kicks, notifier, wake, source };
        *lock(&self.thread) = Some(Thread::start(self.name, enter, wakes, turn)?);
        Ok(())
    }

    /// Has the thread take another turn, or its first one when it is started.
    pub fn wake(&self) {
        self.wake.signal();
    }

    /// Ends the thread, after the turn it is at. What there is to do waits until [`Self::run`] is
    /// called again.
    pub fn halt(&self) {
        let thread = lock(&self.thread).take();
        drop(thread);
    }
}

impl Thread {
    fn start(
        name: &str,
        enter: Enter,
        wakes: Wakes,
        mut turn: impl FnMut() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(Event::new()?);
        let stopped = stop.clone();
        let (entered, answer) = sync_channel(1);
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let ready = enter();
            let goes_on = ready.is_ok();
            // The thread that started this one is waiting.
            let _ = entered.send(ready);
            if goes_on && let Err(error) = work(&stopped, &wakes, &mut turn) {
                log::error!("a device's thread cannot wait: {error}");
            }
        })?;
        let thread = Self { stop, handle: Some(handle) };
        answer.recv().map_err(|_| io::Error::other("a device's thread panicked"))??;
        Ok(thread)
    }
}

fn work(stop: &Event, wakes: &Wakes, turn: &mut impl FnMut() -> bool) -> io::Result<()> {
    let mut has_more = false;
    loop {
        let events =
            [stop, wakes.notifier.lowered(), &*wakes.wake].into_iter().chain(wakes.kicks.iter());
        let mut polled: Vec<_> =
            events.map(|event| PollFd::from_borrowed_fd(event.as_fd(), PollFlags::IN)).collect();
        let source = wakes.source.as_ref().map(|source| source.as_fd());
        polled.extend(source.map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN)));
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
        wakes.wake.take();
        for (kick, at) in wakes.kicks.iter().zip(3..) {
            if is_ready(at) {
                kick.take();
            }
        }
        has_more = turn();
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.signal();
        if let Some(handle) = self.handle.take() {
            // A panic was printed when it happened.
            let _ = handle.join();
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A lock that a panic elsewhere does not take from us: what is behind it is whole between any two
/// requests.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    fn transport() -> (Arc<Notifier>, Arc<[Event]>) {
        let events = |count| (0..count).map(|_| Event::new().unwrap()).collect::<Arc<[Event]>>();
        (Arc::new(Notifier::new(2, events(3)).unwrap()), events(2))
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
        let ((notifier, kicks), count) = (transport(), Arc::new(AtomicU32::new(0)));
        let turns = count.clone();
        // Every third turn is the last one in a row.
        let turn = move || !(turns.fetch_add(1, Ordering::AcqRel) + 1).is_multiple_of(3);
        let worker = Worker::new("test").unwrap();
        worker.run(&notifier, &kicks, Box::new(|| Ok(())), turn).unwrap();
        reach(&count, 3);
        kicks[1].signal();
        reach(&count, 6);
        worker.wake();
        reach(&count, 9);
        notifier.lowered().signal();
        reach(&count, 12);
        worker.halt();
        kicks[0].signal();
        assert_eq!(count.load(Ordering::Acquire), 12);
    }

    #[test]
    fn a_descriptor_of_the_device_wakes_the_thread() {
        let ((notifier, kicks), count) = (transport(), Arc::new(AtomicU32::new(0)));
        let source = Arc::new(Event::new().unwrap());
        let (turns, taken) = (count.clone(), source.clone());
        let turn = move || {
            taken.take();
            turns.fetch_add(1, Ordering::AcqRel);
            false
        };
        let worker = Worker::new("test").unwrap();
        worker.run_with(&notifier, &kicks, source.clone(), Box::new(|| Ok(())), turn).unwrap();
        reach(&count, 1);
        source.signal();
        reach(&count, 2);
    }

    #[test]
    fn what_came_before_the_thread_is_not_lost_and_a_new_thread_comes_after_the_old() {
        let (notifier, kicks) = transport();
        let worker = Worker::new("test").unwrap();
        worker.wake();
        let mut last = Arc::new(());
        for number in 0..3 {
            let (mine, count) = (Arc::new(()), Arc::new(AtomicU32::new(0)));
            let (held, before, turns) = (mine.clone(), last.clone(), count.clone());
            let enter = move || {
                assert_eq!(Arc::strong_count(&before), 2, "the thread before this one runs");
                Ok(())
            };
            let turn = move || {
                let _ = &held;
                turns.fetch_add(1, Ordering::AcqRel);
                false
            };
            worker.run(&notifier, &kicks, Box::new(enter), turn).unwrap();
            if number > 0 {
                worker.wake();
            }
            reach(&count, 1);
            last = mine;
        }
    }

    #[test]
    fn a_thread_that_cannot_enter_does_not_work() {
        let (notifier, kicks) = transport();
        let enter = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        let result = Worker::new("test")
            .unwrap()
            .run(&notifier, &kicks, Box::new(enter), || panic!("it works"));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
