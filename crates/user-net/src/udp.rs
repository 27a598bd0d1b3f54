//! Datagrams: each flow of the guest has a socket of the host, and each forwarded port one for all
//! of its clients.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketType, recv, send};
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr};

use crate::config::{Config, DNS, Protocol, visible};
use crate::ip::Guest;
use crate::link::{Link, checksums};
use crate::sources::{Source, Sources, free_number, open};
use crate::{Error, Forward};

/// Maximum number of flows, and of clients of a forwarded port: the one that was silent for longest
/// makes room.
pub(crate) const FLOWS: usize = 256;
/// Silence after which a flow has ended.
const SILENCE: Duration = Duration::from_secs(60);
/// The same for a flow to a name server, whose answer is all there is.
const DNS_SILENCE: Duration = Duration::from_secs(10);
/// Bytes of the largest datagram.
const LARGEST: usize = 65_535;
/// Bytes of a UDP header.
const HEADER: usize = 8;
/// Time to live of packets to the guest.
const HOPS: u8 = 64;

/// A flow that the guest has begun.
#[derive(Debug)]
struct Flow {
    /// Connected to the other end.
    socket: OwnedFd,
    guest_port: u16,
    /// The other end, as the guest sees it.
    peer: SocketAddrV4,
    is_readable: bool,
    ends: Instant,
}

/// A forwarded port.
#[derive(Debug)]
struct Port {
    socket: UdpSocket,
    guest_port: u16,
    is_readable: bool,
    /// Clients: as the guest sees them, as they are, and when they last sent something.
    clients: BTreeMap<SocketAddrV4, (SocketAddr, Instant)>,
}

/// All flows.
#[derive(Debug)]
pub(crate) struct Flows {
    ports: Vec<Port>,
    flows: BTreeMap<u32, Flow>,
    next: u32,
    buffer: Vec<u8>,
}

impl Flows {
    /// Opens the forwarded ports.
    pub(crate) fn new(forwards: &[Forward], sources: &Sources) -> Result<Self, Error> {
        let mut ports = Vec::new();
        for forward in forwards.iter().filter(|forward| forward.protocol == Protocol::Udp) {
            let address = forward.host;
            let listen = |source| Error::Listen { address, source };
            let socket = UdpSocket::bind(address).map_err(listen)?;
            socket.set_nonblocking(true).map_err(listen)?;
            let number = u32::try_from(ports.len()).unwrap_or(u32::MAX);
            sources.add(&socket, Source::Port(number)).map_err(listen)?;
            let guest_port = forward.guest_port;
            ports.push(Port { socket, guest_port, is_readable: false, clients: BTreeMap::new() });
        }
        Ok(Self { ports, flows: BTreeMap::new(), next: 0, buffer: vec![0; LARGEST] })
    }

    /// `true` if datagrams wait for the guest at forwarded ports.
    pub(crate) fn wait_for_guest(&self) -> bool {
        self.ports.iter().any(|port| port.is_readable)
    }

    /// Notes that a forwarded port may have datagrams.
    pub(crate) fn port_ready(&mut self, number: u32) {
        let port = usize::try_from(number).ok().and_then(|at| self.ports.get_mut(at));
        if let Some(port) = port {
            port.is_readable = true;
        }
    }

    /// Notes that a flow may have datagrams.
    pub(crate) fn flow_ready(&mut self, number: u32) {
        if let Some(flow) = self.flows.get_mut(&number) {
            flow.is_readable = true;
        }
    }

    /// Time at which the next flow ends.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.flows.values().map(|flow| flow.ends).min()
    }

    /// Takes a packet of the guest.
    pub(crate) fn send(
        &mut self,
        packet: &Ipv4Packet<&[u8]>,
        config: &Config,
        sources: &Sources,
        now: Instant,
    ) {
        let Ok(datagram) = UdpPacket::new_checked(packet.payload()) else { return };
        let peer = SocketAddrV4::new(packet.dst_addr(), datagram.dst_port());
        let guest_port = datagram.src_port();
        if let Some((port, client)) = self.client(guest_port, peer) {
            if let Err(error) = port.socket.send_to(datagram.payload(), client) {
                log::debug!("a datagram to {client}: {error}");
            }
            return;
        }
        let sent = self.flow(guest_port, peer, config, sources, now).map(|flow| {
            flow.ends = now.checked_add(silence(peer.port())).unwrap_or(now);
            // The error of an earlier one, such as that nothing listens there, is reported once.
            match send(&flow.socket, datagram.payload(), SendFlags::NOSIGNAL) {
                Err(Errno::CONNREFUSED) => {
                    send(&flow.socket, datagram.payload(), SendFlags::NOSIGNAL)
                }
                other => other,
            }
        });
        if let Err(error) = sent.and_then(|sent| Ok(sent?)) {
            log::debug!("a datagram to {peer}: {error}");
        }
    }

    /// Client of a forwarded port that the guest answers.
    fn client(&self, guest_port: u16, peer: SocketAddrV4) -> Option<(&Port, SocketAddr)> {
        self.ports.iter().filter(|port| port.guest_port == guest_port).find_map(|port| {
            let (client, _) = port.clients.get(&peer)?;
            Some((port, *client))
        })
    }

    /// The flow of the guest's `guest_port` and `peer`, which begins if there is none.
    fn flow(
        &mut self,
        guest_port: u16,
        peer: SocketAddrV4,
        config: &Config,
        sources: &Sources,
        now: Instant,
    ) -> io::Result<&mut Flow> {
        let known = |(number, flow): (&u32, &Flow)| {
            (flow.guest_port == guest_port && flow.peer == peer).then_some(*number)
        };
        let number = match self.flows.iter().find_map(known) {
            Some(number) => number,
            None => {
                let address = config.resolve(peer).ok_or(Errno::NETUNREACH)?;
                self.make_room(now);
                let number = free_number(&self.flows, &mut self.next);
                let socket = open(SocketType::DGRAM, address)?;
                sources.add(&socket, Source::Flow(number))?;
                let flow = Flow { socket, guest_port, peer, is_readable: false, ends: now };
                self.flows.insert(number, flow);
                number
            }
        };
        self.flows.get_mut(&number).ok_or_else(|| Errno::NOENT.into())
    }

    /// Drops flows that have ended, and the one that ends next if there are too many.
    fn make_room(&mut self, now: Instant) {
        self.expire(now);
        if self.flows.len() >= FLOWS
            && let Some(number) =
                self.flows.iter().min_by_key(|(_, flow)| flow.ends).map(|(number, _)| *number)
        {
            self.flows.remove(&number);
        }
    }

    /// Drops flows that have ended.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.flows.retain(|_, flow| flow.ends > now);
    }

    /// Passes datagrams on to the guest, as long as there is room for them.
    pub(crate) fn receive(&mut self, guest: &Guest, link: &mut Link, now: Instant) {
        let buffer = &mut self.buffer[..];
        for flow in self.flows.values_mut() {
            while flow.is_readable && link.has_room() {
                match recv(&flow.socket, &mut *buffer, RecvFlags::empty()) {
                    Ok((read, _)) => {
                        let end = now.checked_add(silence(flow.peer.port())).unwrap_or(now);
                        flow.ends = flow.ends.max(end);
                        let bytes = buffer.get(..read).unwrap_or_default();
                        deliver(link, guest, flow.peer, flow.guest_port, bytes);
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => {
                        flow.is_readable = error != Errno::AGAIN && error != Errno::BADF;
                        log::trace!("datagrams of {}: {error}", flow.peer);
                    }
                }
            }
        }
        if !guest.is_ready {
            return;
        }
        for port in &mut self.ports {
            while port.is_readable && link.has_room() {
                match port.socket.recv_from(buffer) {
                    Ok((read, client)) => {
                        let peer = port.note(client, now);
                        let bytes = buffer.get(..read).unwrap_or_default();
                        deliver(link, guest, peer, port.guest_port, bytes);
                    }
                    // The error of an earlier answer is reported once.
                    Err(error) => {
                        let kind = error.kind();
                        port.is_readable = kind == std::io::ErrorKind::Interrupted
                            || kind == std::io::ErrorKind::ConnectionRefused;
                    }
                }
            }
        }
    }
}

impl Port {
    /// Notes a client. Returns its address as the guest sees it.
    fn note(&mut self, client: SocketAddr, now: Instant) -> SocketAddrV4 {
        let peer = SocketAddrV4::new(visible(client.ip()), client.port());
        if self.clients.len() >= FLOWS
            && !self.clients.contains_key(&peer)
            && let Some(oldest) =
                self.clients.iter().min_by_key(|(_, (_, used))| *used).map(|(peer, _)| *peer)
        {
            self.clients.remove(&oldest);
        }
        self.clients.insert(peer, (client, now));
        peer
    }
}

fn silence(port: u16) -> Duration {
    if port == DNS { DNS_SILENCE } else { SILENCE }
}

/// Queues a datagram for the guest.
fn deliver(link: &mut Link, guest: &Guest, from: SocketAddrV4, port: u16, bytes: &[u8]) {
    reply(link, (*from.ip(), from.port()), (guest.address, port), bytes.len(), |payload| {
        payload.copy_from_slice(bytes);
    });
}

/// Queues a datagram for the guest, whose `length` bytes `fill` makes.
pub(crate) fn reply(
    link: &mut Link,
    (source, src_port): (std::net::Ipv4Addr, u16),
    (target, dst_port): (std::net::Ipv4Addr, u16),
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) {
    let header = Ipv4Repr {
        src_addr: source,
        dst_addr: target,
        next_header: IpProtocol::Udp,
        payload_len: length.saturating_add(HEADER),
        hop_limit: HOPS,
    };
    link.push_packet(&header, |bytes| {
        let mut datagram = UdpPacket::new_unchecked(bytes);
        let ends = (source.into(), target.into());
        UdpRepr { src_port, dst_port }.emit(
            &mut datagram,
            &ends.0,
            &ends.1,
            length,
            fill,
            &checksums(),
        );
    });
}
