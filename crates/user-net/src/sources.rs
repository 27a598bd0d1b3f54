//! Sockets and the timer that a stack waits for.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::Error;

/// Events that are taken over at once.
const EVENTS: usize = 64;
/// Nanoseconds: a timer of zero would be none.
const SHORTEST: Duration = Duration::from_nanos(1);

/// A source: its kind, and its number among those of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Timer,
    /// A listening socket of connections.
    Listener(u32),
    /// A socket of a forwarded port of datagrams.
    Port(u32),
    Connection(u32),
    Flow(u32),
}

impl Source {
    fn data(self) -> epoll::EventData {
        let (kind, number) = match self {
            Self::Timer => (0, 0),
            Self::Listener(number) => (1, number),
            Self::Port(number) => (2, number),
            Self::Connection(number) => (3, number),
            Self::Flow(number) => (4, number),
        };
        epoll::EventData::new_u64(u64::from(number) << 8 | kind)
    }

    fn of(data: u64) -> Self {
        let number = u32::try_from(data >> 8).unwrap_or(u32::MAX);
        match data & 0xff {
            1 => Self::Listener(number),
            2 => Self::Port(number),
            3 => Self::Connection(number),
            4 => Self::Flow(number),
            _ => Self::Timer,
        }
    }
}

/// An event of a source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) source: Source,
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    /// The other end has sent all that it will, or the connection is broken.
    pub(crate) may_end: bool,
    /// The connection has failed, or the other end has broken it off.
    pub(crate) has_failed: bool,
}

/// Sources of events, each of which is reported once when it happens.
#[derive(Debug)]
pub(crate) struct Sources {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// Time at which the timer expires.
    armed: Option<Instant>,
}

impl Sources {
    pub(crate) fn new() -> Result<Self, Error> {
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Error::host("an event queue"))?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags);
        let timer = timer.map_err(Error::host("a timer"))?;
        let sources = Self { epoll, timer, armed: None };
        sources.add(&sources.timer, Source::Timer).map_err(Error::host("a timer"))?;
        Ok(sources)
    }

    /// The descriptor that is readable once something has happened.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Adds a descriptor. It is removed when it is closed.
    pub(crate) fn add(&self, fd: impl AsFd, source: Source) -> Result<(), Errno> {
        use epoll::EventFlags as Flags;
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
        epoll::add(&self.epoll, fd, source.data(), flags)
    }

    /// Takes over what has happened, without waiting.
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
                source: Source::of(event.data.u64()),
                is_readable: flags.intersects(Flags::IN | Flags::RDHUP | ends),
                is_writable: flags.intersects(Flags::OUT | ends),
                may_end: flags.intersects(Flags::RDHUP | ends),
                has_failed: flags.contains(Flags::ERR),
            }
        };
        events.iter().map(ready).collect()
    }

    /// Has [`Self::fd`] become readable at `deadline` at the latest. A timer that expires earlier
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
            Err(error) => log::error!("a timer of user-mode networking: {error}"),
        }
    }
}

/// Opens a socket that is connected to `address`, or begins to.
pub(crate) fn open(kind: SocketType, address: SocketAddrV4) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// A number from `next` on that no source among `known` has.
pub(crate) fn free_number<T>(known: &BTreeMap<u32, T>, next: &mut u32) -> u32 {
    while known.contains_key(next) {
        *next = next.wrapping_add(1);
    }
    let number = *next;
    *next = next.wrapping_add(1);
    number
}
