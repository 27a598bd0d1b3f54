//! Connections: each is one of smoltcp's with the guest and one of the host's, with the data of
//! either passed on to the other.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, acceptfrom_with,
    connect, recv, send, shutdown, socket_with, sockopt,
};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{IpListenEndpoint, Ipv4Packet, TcpPacket};

use crate::config::{Config, GATEWAY, Protocol, is_local};
use crate::sources::{Ready, Source, Sources};
use crate::stack::{Guest, Ip};
use crate::{Error, Forward};

/// Maximum number of connections; more are refused.
const CONNECTIONS: usize = 1024;
/// Connections with large buffers.
const LARGE: usize = 128;
/// Bytes of a large buffer: some of the largest segments, so that sender and receiver need not
/// wait for each other.
const LARGE_BUFFER: usize = 256 << 10;
/// Sockets with large buffers that are kept for connections to come.
const SPARE: usize = 16;
/// Bytes of a small one.
const SMALL_BUFFER: usize = 32 << 10;
/// Time in which the guest must answer a connection to it.
const OPENING: Duration = Duration::from_secs(60);
/// Time in which an answer to the guest's data may acknowledge it (RFC 9293, 3.8.6.3).
const ACK_DELAY: Duration = Duration::from_millis(10);
/// Bytes of a packet that begins a connection: headers with all their options.
const HEADERS: usize = 120;

/// A forwarded port.
#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    guest_port: u16,
    /// Connections may be waiting.
    is_ready: bool,
}

/// The side of a connection towards the guest.
#[derive(Debug)]
enum Side {
    /// The guest's first packet, until the host has connected.
    Opening(Vec<u8>),
    /// A socket of smoltcp's.
    Open(SocketHandle),
    /// Both ends have ended their sides. What the guest has sent last is still to be passed on.
    Closing(Vec<u8>),
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    guest_port: u16,
    /// The other end, as the guest sees it.
    peer: SocketAddrV4,
    side: Side,
    /// The host's socket may have data, and may take some.
    is_readable: bool,
    is_writable: bool,
    /// There may be an end behind what is to be read.
    may_end: bool,
    /// The other end has ended its side, and the guest's side has been ended for it.
    host_ended: bool,
    /// The guest has ended its side.
    guest_ended: bool,
    /// The other end's side has been ended for that.
    is_shut: bool,
    is_broken: bool,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Connections {
    listeners: Vec<Listener>,
    open: BTreeMap<u32, Connection>,
    next: u32,
    spare: Vec<Socket<'static>>,
}

impl Connections {
    /// Listens on the forwarded ports.
    pub(crate) fn new(forwards: &[Forward], sources: &Sources) -> Result<Self, Error> {
        let mut listeners = Vec::new();
        for forward in forwards.iter().filter(|forward| forward.protocol == Protocol::Tcp) {
            let address = forward.host;
            let listen = |source| Error::Listen { address, source };
            let socket = TcpListener::bind(address).map_err(listen)?;
            socket.set_nonblocking(true).map_err(listen)?;
            let number = u32::try_from(listeners.len()).unwrap_or(u32::MAX);
            sources.add(&socket, Source::Listener(number)).map_err(|errno| listen(errno.into()))?;
            listeners.push(Listener { socket, guest_port: forward.guest_port, is_ready: false });
        }
        Ok(Self { listeners, open: BTreeMap::new(), next: 0, spare: Vec::new() })
    }

    /// `true` if connections wait for the guest.
    pub(crate) fn wait_for_guest(&self) -> bool {
        self.listeners.iter().any(|listener| listener.is_ready)
    }

    /// Notes what has happened to a listening socket.
    pub(crate) fn listener_ready(&mut self, number: u32) {
        let listener = usize::try_from(number).ok().and_then(|at| self.listeners.get_mut(at));
        if let Some(listener) = listener {
            listener.is_ready = true;
        }
    }

    /// Notes what has happened to a connection's socket.
    pub(crate) fn connection_ready(&mut self, number: u32, ready: Ready, ip: &mut Ip) {
        let others = self.open.len();
        let spare = &mut self.spare;
        let Some(connection) = self.open.get_mut(&number) else { return };
        connection.is_readable |= ready.is_readable;
        connection.is_writable |= ready.is_writable;
        connection.may_end |= ready.may_end;
        let Side::Opening(packet) = &mut connection.side else { return };
        if !ready.is_writable {
            return;
        }
        let packet = std::mem::take(packet);
        let result = sockopt::socket_error(&connection.socket).and_then(|error| error);
        let handle = match result {
            Ok(()) => Some(ip.sockets.add(buffered(spare, others))),
            Err(error) => {
                log::debug!("connecting to {}: {error}", connection.peer);
                None
            }
        };
        if let Some(handle) = handle {
            let (ip_address, port) = (connection.peer.ip(), connection.peer.port());
            let endpoint = IpListenEndpoint { addr: Some((*ip_address).into()), port };
            // The port is not 0, and the socket is new.
            let _ = ip.sockets.get_mut::<Socket<'_>>(handle).listen(endpoint);
            connection.side = Side::Open(handle);
        }
        // Without a socket for it, the answer is a reset.
        ip.feed(&packet);
        match handle {
            Some(handle) if ip.sockets.get::<Socket<'_>>(handle).is_listening() => {
                // Such a packet begins no connection.
                ip.sockets.remove(handle);
                self.open.remove(&number);
            }
            Some(_) => {}
            None => drop(self.open.remove(&number)),
        }
    }

    /// Takes a packet of the guest.
    pub(crate) fn send(
        &mut self,
        packet: &Ipv4Packet<&[u8]>,
        config: &Config,
        sources: &Sources,
        ip: &mut Ip,
    ) {
        let Ok(segment) = TcpPacket::new_checked(packet.payload()) else { return };
        let peer = SocketAddrV4::new(packet.dst_addr(), segment.dst_port());
        let guest_port = segment.src_port();
        let bytes = packet.clone().into_inner();
        if segment.syn() && !segment.ack() {
            let known = self.open.values().find(|one| one.is(guest_port, peer));
            match known.map(|connection| &connection.side) {
                // The guest repeats itself.
                Some(Side::Opening(_)) => return,
                Some(Side::Open(_) | Side::Closing(_)) => {}
                None if bytes.len() <= HEADERS => {
                    if self.begin(guest_port, peer, bytes, config, sources) {
                        return;
                    }
                }
                None => return,
            }
        }
        ip.feed(bytes);
    }

    /// Begins a connection of the guest. Returns `false` if it is refused.
    fn begin(
        &mut self,
        guest_port: u16,
        peer: SocketAddrV4,
        packet: &[u8],
        config: &Config,
        sources: &Sources,
    ) -> bool {
        let Some(address) = config.resolve(peer) else { return false };
        if self.open.len() >= CONNECTIONS {
            log::debug!("the guest has {CONNECTIONS} connections, and gets no more");
            return false;
        }
        let side = Side::Opening(packet.to_vec());
        let begun =
            open(address).and_then(|socket| self.insert(socket, guest_port, peer, side, sources));
        begun.inspect_err(|error| log::debug!("connecting to {address}: {error}")).is_ok()
    }

    fn insert(
        &mut self,
        socket: OwnedFd,
        guest_port: u16,
        peer: SocketAddrV4,
        side: Side,
        sources: &Sources,
    ) -> Result<(), Errno> {
        // What the guest sends is all there at once, and what it waits for should be, too.
        sockopt::set_tcp_nodelay(&socket, true)?;
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        sources.add(&socket, Source::Connection(self.next))?;
        let connection = Connection {
            socket,
            guest_port,
            peer,
            side,
            is_readable: false,
            is_writable: false,
            may_end: false,
            host_ended: false,
            guest_ended: false,
            is_shut: false,
            is_broken: false,
        };
        self.open.insert(self.next, connection);
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Passes the connections on that wait at forwarded ports. Call it once the guest answers.
    pub(crate) fn accept(&mut self, guest: &Guest, sources: &Sources, ip: &mut Ip) {
        for at in 0..self.listeners.len() {
            while self.open.len() < CONNECTIONS
                && let Some(listener) = self.listeners.get_mut(at)
                && listener.is_ready
            {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let port = listener.guest_port;
                let (socket, client) = match acceptfrom_with(&listener.socket, flags) {
                    Ok((socket, client)) => (socket, client),
                    // It has gone in between.
                    Err(Errno::CONNABORTED | Errno::INTR) => continue,
                    Err(error) => {
                        listener.is_ready = false;
                        if error != Errno::AGAIN {
                            log::warn!("a connection to a forwarded port: {error}");
                        }
                        continue;
                    }
                };
                let client = client.and_then(|client| SocketAddr::try_from(client).ok());
                let Some(peer) = client.and_then(|client| self.seen_by_guest(client, port)) else {
                    continue;
                };
                if let Err(error) = self.connect(socket, port, peer, guest, sources, ip) {
                    log::debug!("a connection to a forwarded port: {error}");
                }
            }
        }
    }

    /// Address of a client as the guest sees it. Two clients with one port can look alike to it if
    /// they come from different addresses that the gateway stands for.
    fn seen_by_guest(&self, client: SocketAddr, guest_port: u16) -> Option<SocketAddrV4> {
        let ip = visible(client.ip());
        let is_free =
            |peer: &SocketAddrV4| !self.open.values().any(|one| one.is(guest_port, *peer));
        let others = (0..u16::MAX).map(|more| client.port().wrapping_add(more));
        others
            .filter(|port| *port != 0)
            .map(|port| SocketAddrV4::new(ip, port))
            .take(CONNECTIONS.saturating_add(1))
            .find(is_free)
    }

    fn connect(
        &mut self,
        host: OwnedFd,
        guest_port: u16,
        peer: SocketAddrV4,
        guest: &Guest,
        sources: &Sources,
        ip: &mut Ip,
    ) -> Result<(), Errno> {
        let mut socket = buffered(&mut self.spare, self.open.len());
        socket.set_timeout(Some(duration(OPENING)));
        let (remote, local) = ((guest.address, guest_port), (*peer.ip(), peer.port()));
        socket.connect(ip.interface.context(), remote, local).map_err(|_| Errno::ADDRNOTAVAIL)?;
        let handle = ip.sockets.add(socket);
        self.insert(host, guest_port, peer, Side::Open(handle), sources)
            .inspect_err(|_| drop(ip.sockets.remove(handle)))
    }

    /// Passes data on in both directions. Returns `true` if there was some, or connections have
    /// changed. Call it when smoltcp's sockets have sent what they had, as far as there was room.
    pub(crate) fn relay(&mut self, ip: &mut Ip) -> bool {
        let mut has_changed = false;
        let has_room = ip.link.has_room();
        self.open.retain(|_, connection| {
            if let Side::Open(handle) = connection.side {
                let socket = ip.sockets.get_mut(handle);
                if is_over(socket, has_room) {
                    connection.guest_ended |= socket.state() == State::TimeWait;
                    connection.side = Side::Closing(take_all(socket));
                    recycle(&mut self.spare, ip.sockets.remove(handle));
                    has_changed = true;
                } else {
                    has_changed |= connection.relay(socket);
                }
            }
            !matches!(connection.side, Side::Closing(_)) || connection.finish()
        });
        has_changed
    }
}

impl Connection {
    fn is(&self, guest_port: u16, peer: SocketAddrV4) -> bool {
        self.guest_port == guest_port && self.peer == peer
    }

    /// Passes data on in both directions. Returns `true` if there was some, or a side has ended.
    fn relay(&mut self, socket: &mut Socket<'_>) -> bool {
        if !socket.is_active() {
            return false;
        }
        if socket.timeout().is_some() && socket.may_send() {
            socket.set_timeout(None);
        }
        match self.relay_out(socket).and_then(|out| Ok(self.relay_in(socket)? || out)) {
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

    /// Passes on what the guest has sent last. Returns `false` if that is done, or the connection
    /// was broken off, which the other end sees, too.
    fn finish(&mut self) -> bool {
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
fn is_over(socket: &Socket<'_>, has_room: bool) -> bool {
    match socket.state() {
        State::TimeWait => has_room,
        State::Closed => socket.remote_endpoint().is_none(),
        _ => false,
    }
}

/// Takes what is left of the guest's data.
fn take_all(socket: &mut Socket<'_>) -> Vec<u8> {
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

/// Begins a connection to `address`.
fn open(address: SocketAddrV4) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// A socket of smoltcp's, if there are `others`.
fn buffered(spare: &mut Vec<Socket<'static>>, others: usize) -> Socket<'static> {
    let is_large = others < LARGE;
    let kept = if is_large { spare.pop() } else { None };
    let mut socket = kept.unwrap_or_else(|| {
        let size = if is_large { LARGE_BUFFER } else { SMALL_BUFFER };
        let buffer = || SocketBuffer::new(vec![0; size]);
        Socket::new(buffer(), buffer())
    });
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(Some(duration(ACK_DELAY)));
    socket.set_timeout(None);
    socket
}

/// Keeps a socket that has done its work: to clear new buffers takes longer than all else that a
/// short connection does.
fn recycle(spare: &mut Vec<Socket<'static>>, socket: smoltcp::socket::Socket<'static>) {
    #[allow(irrefutable_let_patterns, reason = "tests build smoltcp with other kinds of sockets")]
    if let smoltcp::socket::Socket::Tcp(mut socket) = socket
        && spare.len() < SPARE
        && socket.recv_capacity() == LARGE_BUFFER
    {
        socket.abort();
        spare.push(socket);
    }
}

/// Address of a client of a forwarded port as the guest sees it: the gateway stands for those that
/// the guest could not answer.
pub(crate) fn visible(client: IpAddr) -> Ipv4Addr {
    match client.to_canonical() {
        IpAddr::V4(ip) if !ip.is_loopback() && !ip.is_unspecified() && !is_local(ip) => ip,
        _ => GATEWAY,
    }
}

fn duration(time: Duration) -> smoltcp::time::Duration {
    time.into()
}
