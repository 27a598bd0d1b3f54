//! The descriptors and the timer that a device waits for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Events that are taken over at once.
const EVENTS: usize = 64;
/// A timer of zero would be none.
const SHORTEST: Duration = Duration::from_nanos(1);
/// Data of the timer and of the listener; connections have their numbers after these.
const TIMER: u64 = 0;
const LISTENER: u64 = 1;
/// Number of the first connection.
pub(crate) const FIRST_ID: u64 = 2;

/// Source of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A time has come.
    Timer,
    /// A client has connected.
    Listener,
    /// A connection, by its number from [`FIRST_ID`] on.
    Connection(u64),
}

/// An event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) source: Source,
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    /// The peer has closed its socket.
    pub(crate) has_hung_up: bool,
}

/// Sources of events, each of which is reported once when it happens.
#[derive(Debug)]
pub(crate) struct Sources {
    epoll: Arc<OwnedFd>,
    timer: OwnedFd,
    /// Time at which the timer expires.
    armed: Option<Instant>,
}

impl Sources {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let sources = Self { epoll, timer, armed: None };
        sources.add(&sources.timer, Source::Timer)?;
        Ok(sources)
    }

    pub(crate) fn fd(&self) -> Arc<OwnedFd> {
        self.epoll.clone()
    }

    /// Adds a descriptor. It is removed when it is closed.
    pub(crate) fn add(&self, fd: impl AsFd, source: Source) -> Result<(), Errno> {
        use epoll::EventFlags as Flags;
        let data = match source {
            Source::Timer => TIMER,
            Source::Listener => LISTENER,
            Source::Connection(id) => id,
        };
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(data), flags)
    }

    /// Takes over some of what has happened, without waiting. What is left keeps the descriptor
    /// readable.
    pub(crate) fn take(&self) -> Vec<Ready> {
        use epoll::EventFlags as Flags;
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut room = [MaybeUninit::uninit(); EVENTS];
        // A signal's handler has run in between: it is called again.
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut room[..], Some(&none)) else {
            return Vec::new();
        };
        let ends = Flags::ERR | Flags::HUP;
        let ready = |event: &epoll::Event| {
            let flags = event.flags;
            Ready {
                source: match event.data.u64() {
                    TIMER => Source::Timer,
                    LISTENER => Source::Listener,
                    id => Source::Connection(id),
                },
                is_readable: flags.intersects(Flags::IN | Flags::RDHUP | ends),
                is_writable: flags.intersects(Flags::OUT | ends),
                has_hung_up: flags.intersects(ends),
            }
        };
        events.iter().map(ready).collect()
    }

    /// Has the descriptor become readable at `deadline` at the latest. A timer that expires earlier
    /// is left as it is, which saves most system calls.
    pub(crate) fn wake_at(&mut self, deadline: Option<Instant>, now: Instant) {
        let Some(deadline) = deadline else { return };
        if self.armed.is_some_and(|armed| armed > now && armed <= deadline) {
            return;
        }
        let time = deadline.saturating_duration_since(now).max(SHORTEST);
        let value = Timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        match timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once) {
            Ok(_) => self.armed = Some(deadline),
            Err(error) => log::error!("a timer of the vsock device: {error}"),
        }
    }
}
