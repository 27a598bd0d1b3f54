//! The guest: smoltcp on Ethernet.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nerite_user_net::{GATEWAY, GATEWAY_MAC, GUEST, Stack};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, tcp, udp};
use smoltcp::wire::{
    EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, IpProtocol, Ipv4Packet, Ipv4Repr,
    TcpPacket,
};

pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 5, 3];
/// Time without any progress after which a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// Turns without a frame after which nothing moves any more.
const STUCK: usize = 200;

/// A guest on a stack.
pub(crate) struct Guest {
    pub(crate) stack: Stack,
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    port: u16,
    started: Instant,
    idle: usize,
}

/// Frames between guest and stack.
#[derive(Default)]
struct Wire {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
    /// Segments to the guest that break a connection off.
    resets: usize,
}

impl Device for Wire {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Frame, Room<'_>)> {
        Some((Frame(self.received.pop_front()?), Room(self)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Room<'_>> {
        Some(Room(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // All checksums are computed and looked at.
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Room<'a>(&'a mut Wire);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.sent.push_back(frame);
        result
    }
}

impl Guest {
    pub(crate) fn new(stack: Stack) -> Self {
        let mut guest = Self::without_address(stack);
        guest.interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(GUEST.into(), 24)).unwrap();
        });
        guest.interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        guest
    }

    pub(crate) fn without_address(stack: Stack) -> Self {
        let mut wire = Wire::default();
        let config = Config::new(EthernetAddress(MAC).into());
        let interface = Interface::new(config, &mut wire, smoltcp::time::Instant::ZERO);
        let sockets = SocketSet::new(Vec::new());
        let started = Instant::now();
        Self { stack, interface, sockets, wire, port: 40_000, started, idle: 0 }
    }

    /// Moves frames in both directions, and waits a little if there are none.
    pub(crate) fn turn(&mut self) {
        let now = smoltcp::time::Instant::from_millis(
            i64::try_from(self.started.elapsed().as_millis()).unwrap(),
        );
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        let mut moved = 0;
        while let Some(frame) = self.wire.sent.pop_front() {
            self.stack.send(&frame);
            moved += 1;
        }
        self.stack.flush();
        while let Some(frame) = self.stack.receive(<[u8]>::to_vec) {
            self.wire.resets += usize::from(is_reset(&frame));
            self.wire.received.push_back(frame);
            moved += 1;
        }
        self.idle = if moved == 0 { self.idle + 1 } else { 0 };
        if moved == 0 {
            wait_readable(&self.stack);
        }
    }

    /// Connections that the stack has broken off.
    pub(crate) fn resets(&self) -> usize {
        self.wire.resets
    }

    /// `true` if no frame has moved for some time.
    pub(crate) fn is_stuck(&self) -> bool {
        self.idle > STUCK
    }

    pub(crate) fn wait(&mut self, what: &str, mut is_done: impl FnMut(&mut Self) -> bool) {
        let mut deadline = Instant::now() + PATIENCE;
        while !is_done(self) {
            self.turn();
            if self.idle == 0 {
                deadline = Instant::now() + PATIENCE;
            }
            assert!(Instant::now() < deadline, "waited {what}");
        }
    }

    /// Goes on until a thread has ended.
    pub(crate) fn until_done<T>(&mut self, thread: JoinHandle<T>) -> T {
        self.wait("for a thread", |_| thread.is_finished());
        thread.join().unwrap()
    }

    pub(crate) fn lease(&mut self) -> dhcpv4::Config<'static> {
        let handle = self.sockets.add(dhcpv4::Socket::new());
        let mut lease = None;
        self.wait("for a lease", |guest| {
            let event = guest.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll();
            if let Some(dhcpv4::Event::Configured(config)) = event {
                lease = Some(dhcpv4::Config { packet: None, ..config });
            }
            lease.is_some()
        });
        lease.unwrap()
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn add(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 1 << 16]);
        self.sockets.add(tcp::Socket::new(buffer(), buffer()))
    }

    pub(crate) fn open(&mut self, (address, port): (Ipv4Addr, u16)) -> SocketHandle {
        let handle = self.add();
        self.port += 1;
        let local = self.port;
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.connect(self.interface.context(), (address, port), local).unwrap();
        handle
    }

    pub(crate) fn connect(&mut self, to: (Ipv4Addr, u16)) -> SocketHandle {
        let handle = self.open(to);
        self.wait("for a connection", |guest| guest.state(handle) == tcp::State::Established);
        handle
    }

    pub(crate) fn listen(&mut self, port: u16) -> SocketHandle {
        let handle = self.add();
        self.socket(handle).listen(port).unwrap();
        handle
    }

    pub(crate) fn state(&mut self, handle: SocketHandle) -> tcp::State {
        self.socket(handle).state()
    }

    pub(crate) fn peer(&mut self, handle: SocketHandle) -> (Ipv4Addr, u16) {
        let peer = self.socket(handle).remote_endpoint().unwrap();
        let IpAddress::Ipv4(address) = peer.addr;
        (address, peer.port)
    }

    pub(crate) fn close(&mut self, handle: SocketHandle) {
        self.socket(handle).close();
    }

    pub(crate) fn abort(&mut self, handle: SocketHandle) {
        self.socket(handle).abort();
    }

    pub(crate) fn room(&mut self, handle: SocketHandle) -> usize {
        let socket = self.socket(handle);
        socket.send_capacity()
    }

    pub(crate) fn try_write(&mut self, handle: SocketHandle, bytes: &[u8]) -> usize {
        self.socket(handle).send_slice(bytes).unwrap()
    }

    pub(crate) fn write(&mut self, handle: SocketHandle, bytes: &[u8]) {
        assert_eq!(self.try_write(handle, bytes), bytes.len());
    }

    /// Takes what has been received.
    pub(crate) fn take(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Ok(1..) = self.socket(handle).recv(|some| {
            bytes.extend_from_slice(some);
            (some.len(), some.len())
        }) {}
        bytes
    }

    pub(crate) fn read(&mut self, handle: SocketHandle, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.wait("for data", |guest| {
            bytes.extend(guest.take(handle));
            bytes.len() >= length
        });
        bytes
    }

    /// Sends all of `bytes` and ends this side, and receives until the other side has ended.
    pub(crate) fn exchange(&mut self, handle: SocketHandle, mut bytes: &[u8]) -> Vec<u8> {
        let mut received = Vec::new();
        self.wait("for the end of a stream", |guest| {
            received.extend(guest.take(handle));
            if !bytes.is_empty() {
                let sent = guest.try_write(handle, bytes);
                bytes = &bytes[sent..];
                if bytes.is_empty() {
                    guest.close(handle);
                }
            }
            bytes.is_empty() && !guest.socket(handle).may_recv()
        });
        received
    }

    pub(crate) fn udp(&mut self, port: u16) -> SocketHandle {
        let buffer = || {
            let slots = vec![udp::PacketMetadata::EMPTY; 16];
            udp::PacketBuffer::new(slots, vec![0; 1 << 16])
        };
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    pub(crate) fn send_datagram(
        &mut self,
        handle: SocketHandle,
        to: (Ipv4Addr, u16),
        bytes: &[u8],
    ) {
        self.sockets.get_mut::<udp::Socket<'_>>(handle).send_slice(bytes, to).unwrap();
        // The gateway's Ethernet address is asked for first.
        while !self.sockets.get::<udp::Socket<'_>>(handle).can_send()
            || self.sockets.get::<udp::Socket<'_>>(handle).send_queue() > 0
        {
            self.turn();
        }
    }

    pub(crate) fn datagram(&mut self, handle: SocketHandle) -> (Vec<u8>, (Ipv4Addr, u16)) {
        let mut received = None;
        self.wait("for a datagram", |guest| {
            let socket = guest.sockets.get_mut::<udp::Socket<'_>>(handle);
            if let Ok((bytes, metadata)) = socket.recv() {
                let IpAddress::Ipv4(address) = metadata.endpoint.addr;
                received = Some((bytes.to_vec(), (address, metadata.endpoint.port)));
            }
            received.is_some()
        });
        received.unwrap()
    }

    /// Returns `true` if `address` answers an echo request.
    pub(crate) fn ping(&mut self, address: Ipv4Addr) -> bool {
        let request = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 9, data: b"ping" };
        let packet = packet(address, IpProtocol::Icmp, request.buffer_len(), |bytes| {
            request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &Default::default());
        });
        self.stack.send(&packet);
        self.stack.flush();
        let Some(frame) = self.stack.receive(<[u8]>::to_vec) else { return false };
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!((packet.src_addr(), packet.dst_addr()), (address, GUEST));
        let answer = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        let answer = Icmpv4Repr::parse(&answer, &Default::default()).unwrap();
        answer == Icmpv4Repr::EchoReply { ident: 7, seq_no: 9, data: b"ping" }
    }

    /// Sends the first segment of a connection, past the guest's own stack.
    pub(crate) fn send_segment(&mut self, address: Ipv4Addr, port: u16) {
        let frame = packet(address, IpProtocol::Tcp, 20, |bytes| {
            let mut segment = TcpPacket::new_unchecked(bytes);
            segment.set_src_port(5);
            segment.set_dst_port(port);
            segment.set_header_len(20);
            segment.set_syn(true);
            segment.set_window_len(1000);
            segment.fill_checksum(&GUEST.into(), &address.into());
        });
        self.stack.send(&frame);
    }
}

/// `true` for a segment with the flag RST.
fn is_reset(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0] && frame[23] == 6 && frame[47] & 4 != 0
}

/// Frame of a packet to the gateway.
fn packet(
    address: Ipv4Addr,
    protocol: IpProtocol,
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut frame = [&GATEWAY_MAC[..], &MAC, &[8, 0]].concat();
    let header = Ipv4Repr {
        src_addr: GUEST,
        dst_addr: address,
        next_header: protocol,
        payload_len: length,
        hop_limit: 64,
    };
    frame.resize(14 + header.buffer_len() + length, 0);
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    header.emit(&mut packet, &Default::default());
    fill(packet.payload_mut());
    frame
}

/// The guest's question for the gateway's Ethernet address.
pub(crate) fn arp_request() -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &MAC].concat();
    frame.extend(GUEST.octets());
    frame.extend([0; 6]);
    frame.extend(GATEWAY.octets());
    frame
}

/// The next frame for the guest.
pub(crate) fn next_frame(stack: &mut Stack) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(frame) = stack.receive(<[u8]>::to_vec) {
            return frame;
        }
        assert!(Instant::now() < deadline, "waited for a frame");
        wait_readable(stack);
    }
}

/// Waits until something has happened, or a little: the descriptor is watched edge-triggered by
/// users of the stack.
fn wait_readable(stack: &Stack) {
    let fd = stack.fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let limit = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    poll(&mut fds, Some(&limit)).unwrap();
    thread::yield_now();
}
