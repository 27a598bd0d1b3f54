//! One connection: what either side sends is passed on to the other.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};

/// The side of a connection towards the guest.
#[derive(Debug)]
pub(super) enum Side {
    /// The guest's first packet, until the host has connected.
    Opening(Vec<u8>),
    /// A socket of smoltcp's.
    Open(SocketHandle),
    /// Both ends have ended their sides. What the guest has sent last is still to be passed on.
    Closing(Vec<u8>),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) guest_port: u16,
    /// The other end, as the guest sees it.
    pub(super) peer: SocketAddrV4,
    pub(super) side: Side,
    /// The host's socket may have data, and may take some.
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
    /// There may be an end behind what is to be read.
    pub(super) may_end: bool,
    /// The host's socket has an error, which may be behind much data.
    pub(super) has_failed: bool,
    /// The other end has ended its side, and the guest's side has been ended for it.
    host_ended: bool,
    /// The guest has ended its side.
    pub(super) guest_ended: bool,
    /// The other end's side has been ended for that.
    is_shut: bool,
    is_broken: bool,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, guest_port: u16, peer: SocketAddrV4, side: Side) -> Self {
        Self {
            socket,
            guest_port,
            peer,
            side,
            is_readable: false,
            is_writable: false,
            may_end: false,
            has_failed: false,
            host_ended: false,
            guest_ended: false,
            is_shut: false,
            is_broken: false,
        }
    }

    pub(super) fn is(&self, guest_port: u16, peer: SocketAddrV4) -> bool {
        self.guest_port == guest_port && self.peer == peer
    }

    /// Passes data on in both directions. Returns `true` if there was some, or a side has ended.
    pub(super) fn relay(&mut self, socket: &mut Socket<'_>) -> bool {
        if !socket.is_active() {
            return false;
        }
        if socket.timeout().is_some() && socket.may_send() {
            socket.set_timeout(None);
        }
        let failure = if self.has_failed { self.take_error() } else { Ok(()) };
        let relayed = failure.and_then(|()| self.relay_out(socket));
        match relayed.and_then(|out| Ok(self.relay_in(socket)? || out)) {
            Ok(has_moved) => has_moved,
            Err(error) => {
                log::debug!("the connection with {}: {error}", self.peer);
                self.is_broken = true;
                // The guest gets a reset.
                socket.abort();
                true
            }
        }
    }

    /// Takes the error of the host's socket. What the other end has sent before it broke the
    /// connection off need not reach the guest (RFC 9293, 3.10.7.4), which may take long to make
    /// room for it.
    fn take_error(&mut self) -> Result<(), Errno> {
        self.has_failed = false;
        sockopt::socket_error(&self.socket)?
    }

    /// From the guest to the host.
    fn relay_out(&mut self, socket: &mut Socket<'_>) -> Result<bool, Errno> {
        let mut has_moved = false;
        while self.is_writable && socket.can_recv() {
            let sent = socket.recv(|bytes| match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => (sent, Ok(sent)),
                Err(error) => (0, Err(error)),
            });
            match sent.unwrap_or(Err(Errno::AGAIN)) {
                Ok(_) => has_moved = true,
                Err(Errno::AGAIN) => self.is_writable = false,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        self.guest_ended |= matches!(
            socket.state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        );
        if self.guest_ended && !self.is_shut && socket.recv_queue() == 0 {
            self.is_shut = true;
            shutdown(&self.socket, Shutdown::Write)?;
            has_moved = true;
        }
        Ok(has_moved)
    }

    /// From the host to the guest.
    fn relay_in(&mut self, socket: &mut Socket<'_>) -> Result<bool, Errno> {
        let mut has_moved = false;
        while self.is_readable && !self.host_ended && socket.can_send() {
            let mut room = 0;
            let received = socket.send(|bytes| {
                room = bytes.len();
                match recv(&self.socket, bytes, RecvFlags::empty()) {
                    Ok((read, _)) => (read, Ok(read)),
                    Err(error) => (0, Err(error)),
                }
            });
            match received.unwrap_or(Err(Errno::AGAIN)) {
                Ok(0) => {
                    self.host_ended = true;
                    socket.close();
                    // Nothing will go to the guest that could acknowledge what comes from it, too.
                    socket.set_ack_delay(None);
                    has_moved = true;
                }
                Ok(read) => {
                    // What comes after a read that leaves room is reported (epoll(7)), but for an
                    // end that was reported before.
                    self.is_readable = read == room || self.may_end;
                    has_moved = true;
                }
                Err(Errno::AGAIN) => self.is_readable = false,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(has_moved)
    }

    /// Passes on what the guest has sent last, once both sides have ended. Returns `false` if that
    /// is done, or the connection was broken off, which the other end sees, too.
    pub(super) fn finish(&mut self) -> bool {
        let Side::Closing(rest) = &mut self.side else { return true };
        let is_whole = self.host_ended && self.guest_ended && !self.is_broken;
        while is_whole && self.is_writable && !rest.is_empty() {
            match send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(rest.drain(..sent.min(rest.len()))),
                Err(Errno::AGAIN) => self.is_writable = false,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        if !is_whole {
            // It fails only for what is no socket.
            let _ = sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
        }
        is_whole && !rest.is_empty()
    }
}

/// Returns `true` if smoltcp's socket has done its work, and acknowledged the guest's end: if the
/// link has room, it had room for that.
///
/// It does not wait for what the guest may repeat of a connection that has ended on both sides: a
/// reset answers that as well.
pub(super) fn is_over(socket: &Socket<'_>, has_room: bool) -> bool {
    match socket.state() {
        State::TimeWait => has_room,
        State::Closed => socket.remote_endpoint().is_none(),
        _ => false,
    }
}

/// Takes what is left of the guest's data.
pub(super) fn take_all(socket: &mut Socket<'_>) -> Vec<u8> {
    let mut rest = Vec::new();
    let mut take = |socket: &mut Socket<'_>| {
        socket.recv(|bytes| {
            rest.extend_from_slice(bytes);
            (bytes.len(), bytes.len())
        })
    };
    while take(socket).is_ok_and(|read| read > 0) {}
    rest
}
