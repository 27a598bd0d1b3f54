//! Sockets that a stack waits for.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

/// Sockets of a stack, and its timer.
pub(crate) type Sources = nerite_event::Sources<Source>;
/// An event of a socket.
pub(crate) type Ready = nerite_event::Ready<Source>;

/// A source: its kind, and its number among those of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A listening socket of connections.
    Listener(u32),
    /// A socket of a forwarded port of datagrams.
    Port(u32),
    Connection(u32),
    Flow(u32),
}

impl From<Source> for u64 {
    fn from(source: Source) -> Self {
        let (kind, number) = match source {
            Source::Listener(number) => (0, number),
            Source::Port(number) => (1, number),
            Source::Connection(number) => (2, number),
            Source::Flow(number) => (3, number),
        };
        Self::from(number) << 2 | kind
    }
}

impl From<u64> for Source {
    fn from(data: u64) -> Self {
        let number = u32::try_from(data >> 2).unwrap_or(u32::MAX);
        match data & 3 {
            0 => Self::Listener(number),
            1 => Self::Port(number),
            2 => Self::Connection(number),
            _ => Self::Flow(number),
        }
    }
}

/// Opens a socket that is connected to `address`, or begins to.
pub(crate) fn open(kind: SocketType, address: SocketAddrV4) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
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
