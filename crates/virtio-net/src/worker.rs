//! The thread of a queue pair: waits for the driver and for the backend.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use nerite_virtio::Event;

/// Work of a thread. It is called with those of the sources that were ready.
pub(crate) trait Task: Send {
    /// Sources to wait for: a descriptor, the kind of watch, and a number that tells it apart.
    fn sources(&self) -> Vec<(RawFd, Watch, u32)>;

    /// Source `number` is ready.
    fn ready(&mut self, number: u32);
}

/// Kind of a watch on a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// While it is readable.
    Readable,
    /// When it becomes readable or writable.
    Edges,
}

/// The number of the source that ends the thread.
const STOP: u32 = u32::MAX;

struct Subscriber<T> {
    task: T,
    stop: Arc<Event>,
    is_stopped: Arc<AtomicBool>,
}

impl<T: Task> MutEventSubscriber for Subscriber<T> {
    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        match events.data() {
            STOP => self.is_stopped.store(true, Ordering::Release),
            number => self.task.ready(number),
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let stop = (self.stop.as_fd().as_raw_fd(), Watch::Readable, STOP);
        for (fd, watch, number) in self.task.sources().into_iter().chain([stop]) {
            let set = match watch {
                Watch::Readable => EventSet::IN,
                Watch::Edges => EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED,
            };
            if let Err(error) = ops.add(Events::with_data_raw(fd, number, set)) {
                log::error!("a network card's thread cannot wait for descriptor {fd}: {error}");
            }
        }
    }
}

/// A thread with an event loop. It ends when this is dropped.
pub(crate) struct Worker {
    stop: Arc<Event>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread that does `task`.
    pub(crate) fn start(name: String, task: impl Task + 'static) -> std::io::Result<Self> {
        let stop = Arc::new(Event::new()?);
        let is_stopped = Arc::new(AtomicBool::new(false));
        let mut manager =
            EventManager::new().map_err(|error| std::io::Error::other(error.to_string()))?;
        manager.add_subscriber(Subscriber {
            task,
            stop: stop.clone(),
            is_stopped: is_stopped.clone(),
        });
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            while !is_stopped.load(Ordering::Acquire) {
                if let Err(error) = manager.run() {
                    log::error!("a network card's thread: {error}");
                    break;
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
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

/// A source that is watched while it is readable.
pub(crate) fn readable(fd: BorrowedFd<'_>, number: u32) -> (RawFd, Watch, u32) {
    (fd.as_raw_fd(), Watch::Readable, number)
}
