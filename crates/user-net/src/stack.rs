//! The stack: takes the guest's frames apart, and brings its parts together.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use smoltcp::iface::{Interface, SocketSet};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    HardwareAddress, IpCidr, IpProtocol, Ipv4Packet, UdpPacket,
};

use crate::config::{Config, GATEWAY, GATEWAY_MAC, GUEST, MAX_MTU, PREFIX};
use crate::ip::{Guest, Ip};
use crate::link::Link;
use crate::sources::{Source, Sources};
use crate::tcp::{CONNECTIONS, Connections};
use crate::udp::{FLOWS, Flows};
use crate::{Error, dhcp};

/// Pause before a guest that does not answer is asked again: the first one, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The most sockets of the host that a stack has open at a time, besides those of forwarded ports.
pub const SOCKETS: usize = CONNECTIONS + FLOWS;

/// Question whether the guest is there, as long as something waits for it.
#[derive(Debug)]
struct Probe {
    next: Option<Instant>,
    pause: Duration,
}

/// A network stack between a guest's Ethernet frames and sockets of the host.
///
/// It never waits: when [`Stack::fd`] becomes readable, there may be frames to receive.
pub struct Stack {
    config: Config,
    guest: Guest,
    probe: Probe,
    sources: Sources,
    connections: Connections,
    flows: Flows,
    ip: Ip,
}

impl Stack {
    /// Makes a stack, and listens on the forwarded ports.
    ///
    /// # Errors
    /// If a port is in use or may not be used, or the process has no descriptor left.
    pub fn new(mut config: Config) -> Result<Self, Error> {
        config.mtu = config.mtu.min(MAX_MTU);
        let sources = Sources::new().map_err(Error::host("an event queue"))?;
        let mut link = Link::new(config.mac, config.mtu);
        let mut seed = [0; 8];
        getrandom(&mut seed, GetRandomFlags::empty()).map_err(Error::host("a random number"))?;
        let mut settings = smoltcp::iface::Config::new(HardwareAddress::Ip);
        settings.random_seed = u64::from_ne_bytes(seed);
        let now = smoltcp::time::Instant::ZERO;
        let mut interface = Interface::new(settings, &mut link, now);
        interface.update_ip_addrs(|addresses| {
            // It is empty, and has room for one.
            let _ = addresses.push(IpCidr::new(GATEWAY.into(), PREFIX));
        });
        // It stands for all hosts that the guest connects to.
        interface.set_any_ip(true);
        Ok(Self {
            guest: Guest { address: GUEST, is_ready: false },
            probe: Probe { next: None, pause: FIRST_PAUSE },
            connections: Connections::new(&config.forwards, &sources)?,
            flows: Flows::new(&config.forwards, &sources)?,
            ip: Ip {
                interface,
                sockets: SocketSet::new(Vec::new()),
                link,
                started: Instant::now(),
            },
            sources,
            config,
        })
    }

    /// A descriptor that becomes readable when there may be frames for the guest. It is to be
    /// watched edge-triggered.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.sources.as_fd()
    }

    /// Takes a frame of the guest. What comes of it waits for [`Self::flush`].
    ///
    /// Drops anything but frames for the gateway.
    pub fn send(&mut self, frame: &[u8]) {
        let Ok(frame) = EthernetFrame::new_checked(frame) else { return };
        let target = frame.dst_addr();
        if target != EthernetAddress(GATEWAY_MAC) && !target.is_broadcast() {
            return;
        }
        if frame.src_addr().is_unicast() {
            self.ip.link.mac = frame.src_addr();
        }
        self.guest.is_ready = true;
        match frame.ethertype() {
            EthernetProtocol::Arp => self.resolve(frame.payload()),
            EthernetProtocol::Ipv4 => {
                if let Ok(packet) = Ipv4Packet::new_checked(frame.payload()) {
                    self.send_packet(&packet);
                }
            }
            _ => {}
        }
    }

    /// Answers an ARP request for the gateway.
    fn resolve(&mut self, packet: &[u8]) {
        let Ok(packet) = ArpPacket::new_checked(packet) else { return };
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) = ArpRepr::parse(&packet)
        else {
            return;
        };
        self.note_address(source_protocol_addr);
        if operation == ArpOperation::Request && target_protocol_addr == GATEWAY {
            let target = (source_hardware_addr, source_protocol_addr);
            self.ip.link.push_arp(ArpOperation::Reply, target);
        }
    }

    /// Notes the guest's address, which need not be the one that DHCP would give it.
    fn note_address(&mut self, address: Ipv4Addr) {
        let [first, ..] = address.octets();
        if (1..224).contains(&first) && address != GATEWAY && !address.is_loopback() {
            self.guest.address = address;
        }
    }

    fn send_packet(&mut self, packet: &Ipv4Packet<&[u8]>) {
        if packet.version() != 4 || packet.more_frags() || packet.frag_offset() != 0 {
            return;
        }
        // The frame may be longer than the packet.
        let Some(bytes) = packet.clone().into_inner().get(..packet.total_len().into()) else {
            return;
        };
        let packet = &Ipv4Packet::new_unchecked(bytes);
        self.note_address(packet.src_addr());
        match packet.next_header() {
            IpProtocol::Tcp => {
                self.connections.send(packet, &self.config, &self.sources, &mut self.ip);
            }
            IpProtocol::Udp => {
                let port = UdpPacket::new_checked(packet.payload()).map(|udp| udp.dst_port());
                if port == Ok(dhcp::SERVER) {
                    dhcp::answer(packet, self.config.mtu, &mut self.ip.link);
                } else if !packet.dst_addr().is_broadcast() {
                    let now = Instant::now();
                    self.flows.send(packet, &self.config, &self.sources, now);
                }
            }
            // Others than the gateway are not asked.
            IpProtocol::Icmp if packet.dst_addr() == GATEWAY => self.ip.feed(bytes),
            _ => {}
        }
    }

    /// Passes on what the guest's frames have brought. Call it after a batch of them.
    pub fn flush(&mut self) {
        loop {
            let has_emitted = self.ip.emit();
            if !self.connections.relay(&mut self.ip) && !has_emitted {
                break;
            }
        }
        let now = Instant::now();
        self.flows.receive(&self.guest, &mut self.ip.link, now);
        let deadlines = [self.ip.deadline(now), self.flows.next_end(), self.probe.next];
        if let Err(error) = self.sources.wake_at(deadlines.into_iter().flatten().min(), now) {
            log::error!("a timer of user-mode networking: {error}");
        }
    }

    /// `true` if there are frames for the guest.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.ip.link.has_frames()
    }

    /// Gives the next frame for the guest to `take`, and returns its result; `None` if there is no
    /// frame.
    pub fn receive<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if !self.has_frames() {
            self.poll();
        }
        let frame = self.ip.link.pop()?;
        let result = take(&frame);
        self.ip.link.recycle(frame);
        Some(result)
    }

    /// Takes over what has happened at the host's side.
    fn poll(&mut self) {
        loop {
            let ready = self.sources.take();
            for event in &ready {
                match event.source {
                    Source::Listener(number) => self.connections.listener_ready(number),
                    Source::Port(number) => self.flows.port_ready(number),
                    Source::Connection(number) => {
                        self.connections.connection_ready(number, *event, &mut self.ip);
                    }
                    Source::Flow(number) => self.flows.flow_ready(number),
                }
            }
            let now = Instant::now();
            self.flows.expire(now);
            if self.guest.is_ready {
                self.connections.accept(&self.guest, &self.sources, &mut self.ip);
            }
            self.look_for_guest(now);
            self.flush();
            if ready.is_empty() || self.has_frames() {
                break;
            }
        }
    }

    /// Asks for the guest's Ethernet address while something waits for the guest. Its driver is
    /// ready before its network stack is, so the question is repeated; a guest that has a fixed
    /// address need not send anything by itself.
    fn look_for_guest(&mut self, now: Instant) {
        let waits = self.connections.wait_for_guest() || self.flows.wait_for_guest();
        if self.guest.is_ready || !waits {
            self.probe = Probe { next: None, pause: FIRST_PAUSE };
            return;
        }
        if self.probe.next.is_some_and(|next| now < next) {
            return;
        }
        let target = (EthernetAddress([0; 6]), self.guest.address);
        self.ip.link.push_arp(ArpOperation::Request, target);
        self.probe.next = now.checked_add(self.probe.pause);
        self.probe.pause = self.probe.pause.saturating_mul(2).min(LONGEST_PAUSE);
    }

    /// Drops the frames for the guest, because its driver is new. Connections go on.
    pub fn discard(&mut self) {
        self.ip.link.clear();
        self.guest.is_ready = false;
    }
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack")
            .field("config", &self.config)
            .field("guest", &self.guest)
            .finish_non_exhaustive()
    }
}
