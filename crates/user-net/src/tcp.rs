//! Connections: each is one of smoltcp's with the guest and one of the host's, with the data of
//! either passed on to the other.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, SocketType, acceptfrom_with, sockopt};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::wire::{IpListenEndpoint, Ipv4Packet, TcpPacket};

use crate::config::{Config, Protocol, visible};
use crate::ip::{Guest, Ip};
use crate::sources::{Ready, Source, Sources, free_number, open};
use crate::{Error, Forward};

mod buffers;
mod connection;

use buffers::Buffers;
use connection::{Connection, Side, is_over, take_all};

/// Maximum number of connections; more are refused.
pub(crate) const CONNECTIONS: usize = 1024;
/// Time in which the guest must answer a connection to it.
const OPENING: Duration = Duration::from_secs(60);
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

/// All connections.
#[derive(Debug)]
pub(crate) struct Connections {
    listeners: Vec<Listener>,
    open: BTreeMap<u32, Connection>,
    next: u32,
    buffers: Buffers,
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
            sources.add(&socket, Source::Listener(number)).map_err(listen)?;
            listeners.push(Listener { socket, guest_port: forward.guest_port, is_ready: false });
        }
        Ok(Self { listeners, open: BTreeMap::new(), next: 0, buffers: Buffers::default() })
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
        let Some(connection) = self.open.get_mut(&number) else { return };
        connection.is_readable |= ready.is_readable();
        connection.is_writable |= ready.is_writable();
        connection.may_end |= ready.may_end();
        connection.has_failed |= ready.has_failed();
        let Side::Opening(packet) = &mut connection.side else { return };
        if !ready.is_writable() {
            return;
        }
        let packet = std::mem::take(packet);
        if let Err(error) = sockopt::socket_error(&connection.socket).and_then(|error| error) {
            log::debug!("connecting to {}: {error}", connection.peer);
            self.open.remove(&number);
            // Without a socket for it, the answer is a reset.
            return ip.feed(&packet);
        }
        let (address, port) = (*connection.peer.ip(), connection.peer.port());
        let endpoint = IpListenEndpoint { addr: Some(address.into()), port };
        let mut socket = self.buffers.socket(others);
        // The port is not 0, and the socket is in no use.
        let _ = socket.listen(endpoint);
        let handle = ip.sockets.add(socket);
        connection.side = Side::Open(handle);
        ip.feed(&packet);
        if ip.sockets.get::<Socket<'_>>(handle).is_listening() {
            // Such a packet begins no connection.
            ip.sockets.remove(handle);
            self.open.remove(&number);
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
        let begun = open(SocketType::STREAM, address)
            .and_then(|socket| self.insert(socket, guest_port, peer, side, sources));
        begun.inspect_err(|error| log::debug!("connecting to {address}: {error}")).is_ok()
    }

    fn insert(
        &mut self,
        socket: OwnedFd,
        guest_port: u16,
        peer: SocketAddrV4,
        side: Side,
        sources: &Sources,
    ) -> io::Result<()> {
        // What the guest sends is all there at once, and what it waits for should be, too.
        sockopt::set_tcp_nodelay(&socket, true)?;
        let number = free_number(&self.open, &mut self.next);
        sources.add(&socket, Source::Connection(number))?;
        self.open.insert(number, Connection::new(socket, guest_port, peer, side));
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
                    Ok(accepted) => accepted,
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
    ) -> io::Result<()> {
        let mut socket = self.buffers.socket(self.open.len());
        socket.set_timeout(Some(OPENING.into()));
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
                    self.buffers.recycle(ip.sockets.remove(handle));
                    has_changed = true;
                } else {
                    has_changed |= connection.relay(socket);
                }
            }
            connection.finish()
        });
        has_changed
    }
}
