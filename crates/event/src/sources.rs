//! A set of descriptors and a timer.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Events that are taken over at once.
const EVENTS: usize = 64;
/// A timer of zero would be none.
const SHORTEST: Duration = Duration::from_nanos(1);
const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// Data of the timer's events.
const TIMER: u64 = u64::MAX;

/// Sockets and other descriptors that one part of a program waits for, and a timer. The set has a
/// descriptor itself, which can be waited for beside others.
///
/// Each event is reported once when it happens (edge-triggered, epoll(7)): the caller keeps it
/// until a read or write finds nothing more. `S` names a source; its number is any but `u64::MAX`.
pub struct Sources<S> {
    epoll: Arc<OwnedFd>,
    timer: OwnedFd,
    /// Time at which the timer expires.
    armed: Option<Instant>,
    sources: PhantomData<fn(u64) -> S>,
}

impl<S: Into<u64> + From<u64>> Sources<S> {
    /// Creates an empty set.
    ///
    /// # Errors
    /// Fails if the process or the host has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let data = epoll::EventData::new_u64(TIMER);
        epoll::add(&epoll, &timer, data, EventFlags::IN | EventFlags::ET)?;
        Ok(Self { epoll: Arc::new(epoll), timer, armed: None, sources: PhantomData })
    }

    /// Descriptor of the set, readable while [`Self::take`] has events to report or the timer has
    /// expired. Watch it edge-triggered.
    #[must_use]
    pub fn shared_fd(&self) -> Arc<OwnedFd> {
        self.epoll.clone()
    }

    /// Adds a descriptor. It leaves the set when it is closed.
    ///
    /// # Errors
    /// Fails if the descriptor is in the set already or cannot be waited for, or if the user
    /// watches too many.
    pub fn add(&self, fd: impl AsFd, source: S) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(source.into()), flags)?)
    }

    /// Takes over some of what has happened, without waiting. What is left keeps the descriptor of
    /// the set readable. That the timer has expired is no event.
    pub fn take(&self) -> Vec<Ready<S>> {
        let mut room = [MaybeUninit::uninit(); EVENTS];
        // Interrupted by a signal's handler: the descriptor is still readable.
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut room[..], Some(&NO_TIME)) else {
            return Vec::new();
        };
        let ready = |event: &epoll::Event| {
            let number = event.data.u64();
            (number != TIMER).then(|| Ready { source: S::from(number), flags: event.flags })
        };
        events.iter().filter_map(ready).collect()
    }

    /// Has the descriptor of the set become readable at `deadline` at the latest. A timer that
    /// expires earlier is left as it is, which saves most system calls.
    ///
    /// # Errors
    /// None that is known, for a deadline that the host's clock can express.
    pub fn wake_at(&mut self, deadline: Option<Instant>, now: Instant) -> io::Result<()> {
        let Some(deadline) = deadline else { return Ok(()) };
        if self.armed.is_some_and(|armed| armed > now && armed <= deadline) {
            return Ok(());
        }
        let time = deadline.saturating_duration_since(now).max(SHORTEST);
        let it_value = Timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        let once = Itimerspec { it_interval: NO_TIME, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.armed = Some(deadline);
        Ok(())
    }
}

impl<S> AsFd for Sources<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl<S> fmt::Debug for Sources<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

/// An event of a source.
#[derive(Debug, Clone, Copy)]
pub struct Ready<S> {
    /// The source, as it was added.
    pub source: S,
    flags: EventFlags,
}

impl<S> Ready<S> {
    /// `true` if a read does not wait: there is data, or the end of it, or an error.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.flags.intersects(EventFlags::IN) || self.may_end()
    }

    /// `true` if a write does not wait: there is room, or an error.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.flags.intersects(EventFlags::OUT) || self.has_hung_up()
    }

    /// `true` if the peer sends no more, or the connection is broken.
    #[must_use]
    pub fn may_end(&self) -> bool {
        self.flags.intersects(EventFlags::RDHUP) || self.has_hung_up()
    }

    /// `true` if the peer neither sends nor receives any more, or the connection is broken.
    #[must_use]
    pub fn has_hung_up(&self) -> bool {
        self.flags.intersects(EventFlags::HUP) || self.has_failed()
    }

    /// `true` if the connection is broken; the socket has the error.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.flags.contains(EventFlags::ERR)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn sources() -> Sources<u64> {
        Sources::new().unwrap()
    }

    /// Waits until the set's descriptor is readable.
    fn wait(sources: &Sources<u64>) {
        let mut polled = [PollFd::new(sources, PollFlags::IN)];
        assert_eq!(poll(&mut polled, None).unwrap(), 1);
    }

    #[test]
    fn an_event_is_reported_once_with_its_source() {
        let sources = sources();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        sources.add(&theirs, 7).unwrap();
        let [first] = sources.take()[..] else { panic!("a socket that can be written to") };
        assert_eq!((first.source, first.is_writable(), first.is_readable()), (7, true, false));
        assert!(sources.take().is_empty());
        ours.write_all(b"text").unwrap();
        wait(&sources);
        let [second] = sources.take()[..] else { panic!("data") };
        assert!(second.is_readable() && !second.may_end());
        assert!(sources.take().is_empty(), "the data is still there, but reported");
        assert_eq!((&theirs).read(&mut [0; 8]).unwrap(), 4);
    }

    #[test]
    fn a_peer_that_ends_is_told_from_one_that_hangs_up() {
        let sources = sources();
        let (ours, theirs) = UnixStream::pair().unwrap();
        sources.add(&theirs, 1).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let [ended] = sources.take()[..] else { panic!("an end") };
        assert!(ended.is_readable() && ended.may_end() && !ended.has_hung_up());
        drop(ours);
        let [closed] = sources.take()[..] else { panic!("a close") };
        assert!(closed.has_hung_up() && closed.is_writable() && !closed.has_failed());
    }

    #[test]
    fn a_closed_descriptor_leaves_the_set() {
        let sources = sources();
        let (ours, theirs) = UnixStream::pair().unwrap();
        sources.add(&theirs, 1).unwrap();
        drop((ours, theirs));
        assert!(sources.take().is_empty());
    }

    #[test]
    fn the_timer_wakes_and_is_no_event() {
        let mut sources = sources();
        let now = Instant::now();
        sources.wake_at(None, now).unwrap();
        assert_eq!(sources.armed, None);
        let deadline = now.checked_add(Duration::from_millis(1)).unwrap();
        sources.wake_at(Some(deadline), now).unwrap();
        // A later deadline does not move it.
        let later = now.checked_add(Duration::from_hours(1)).unwrap();
        sources.wake_at(Some(later), now).unwrap();
        assert_eq!(sources.armed, Some(deadline));
        wait(&sources);
        assert!(sources.take().is_empty());
        // One that has passed expires at once.
        sources.wake_at(Some(now), Instant::now()).unwrap();
        wait(&sources);
    }
}
