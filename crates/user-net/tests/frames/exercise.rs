//! Any frames of a guest, and a host that answers, as a test and as a fuzz target.

#![allow(clippy::cast_possible_truncation, reason = "frames are small")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nerite_user_net::{Config, Forward, GATEWAY, GATEWAY_MAC, GUEST, Protocol, Stack};
use rustix::net::sockopt::set_socket_linger;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 5, 3];
const MTU: u16 = 1500;

/// An event: its kind, bytes and a number.
pub type Step = (u8, Vec<u8>, u32);

/// Servers of the host, and what they have accepted.
struct Host {
    listener: TcpListener,
    streams: Vec<TcpStream>,
    datagrams: UdpSocket,
    forwarded: SocketAddr,
}

/// Sequence numbers of the guest's connections, by port: its own next one, and the one that it
/// expects.
#[derive(Default)]
struct Connections([(u32, u32); PORTS as usize]);

/// Ports of the guest's connections: these many from [`FIRST`].
const PORTS: u16 = 4;
const FIRST: u16 = 1000;

/// Does the steps. Frames to the guest are whole, no longer than its MTU, and limited in number.
pub fn run(steps: &[Step]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    datagrams.set_nonblocking(true).unwrap();
    let (mut stack, forwarded) = stack();
    let mut host = Host { listener, streams: Vec::new(), datagrams, forwarded };
    let mut connections = Connections::default();
    for (kind, bytes, number) in steps {
        match kind % 8 {
            0 => stack.send(bytes),
            1 => stack.send(&frame(*number, bytes)),
            2 => stack.send(&connections.segment(&host, *number, bytes)),
            3 => stack.send(&datagram(&host, *number, bytes)),
            4 => host.act(*number, bytes),
            5 => stack.flush(),
            6 if number.is_multiple_of(8) => stack.discard(),
            _ => {
                for _ in 0..number % 64 {
                    let Some(()) = stack.receive(|frame| connections.note(frame)) else { break };
                }
            }
        }
    }
    stack.flush();
    let mut frames = 0;
    while stack.receive(|_| ()).is_some() {
        frames += 1;
        assert!(frames < 10_000, "frames without end");
    }
}

/// A stack with a forwarded port, and the host's side of it.
fn stack() -> (Stack, SocketAddr) {
    loop {
        // Free a moment ago.
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = Config {
            mac: MAC,
            mtu: MTU,
            forwards: vec![Forward { protocol: Protocol::Tcp, host, guest_port: 1001 }],
            reach_host: true,
            name_server: None,
        };
        if let Ok(stack) = Stack::new(config) {
            return (stack, host);
        }
    }
}

impl Host {
    fn act(&mut self, number: u32, bytes: &[u8]) {
        if let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).unwrap();
            self.streams.push(stream);
        }
        if number.is_multiple_of(16)
            && let Ok(stream) = TcpStream::connect(self.forwarded)
        {
            stream.set_nonblocking(true).unwrap();
            self.streams.push(stream);
        }
        let mut buffer = [0; 4096];
        if let Ok((_, from)) = self.datagrams.recv_from(&mut buffer) {
            let _ = self.datagrams.send_to(bytes, from);
        }
        if self.streams.is_empty() {
            return;
        }
        let at = number as usize / 16 % self.streams.len();
        match number % 5 {
            0 => drop(self.streams.swap_remove(at)),
            1 => {
                let _ = set_socket_linger(&self.streams[at], Some(Duration::ZERO));
                drop(self.streams.swap_remove(at));
            }
            2 => drop(self.streams[at].read(&mut buffer)),
            _ => drop(self.streams[at].write(bytes)),
        }
    }
}

/// A frame with `bytes` as a packet of ARP or IPv4, which goes to no host but this one.
fn frame(number: u32, bytes: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if number.is_multiple_of(4) { [8, 6] } else { [8, 0] };
    let mut frame = [&GATEWAY_MAC[..], &MAC, &kind, bytes].concat();
    let targets = [GATEWAY, GUEST, Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST];
    if let Some(target) = frame.get_mut(30..34) {
        target.copy_from_slice(&targets[number as usize / 4 % 4].octets());
    }
    frame
}

/// A packet of the guest to the gateway.
fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len() as u16).to_be_bytes();
    let mut frame = [&GATEWAY_MAC[..], &MAC, &[8, 0]].concat();
    frame.extend([0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend(GUEST.octets());
    frame.extend(GATEWAY.octets());
    frame.extend(payload);
    frame
}

impl Connections {
    /// A segment of one of a few connections, with the right sequence numbers or any.
    fn segment(&self, host: &Host, number: u32, bytes: &[u8]) -> Vec<u8> {
        let server = host.listener.local_addr().unwrap().port();
        let port = if number.is_multiple_of(16) { 1 } else { server };
        let index = number as u16 / 16 % PORTS;
        let (sequence, expected) = self.0[usize::from(index)];
        let distance = if number & 0x80 == 0 { 0 } else { number >> 4 };
        let mut segment = [(FIRST + index).to_be_bytes(), port.to_be_bytes()].concat();
        segment.extend(sequence.wrapping_add(distance).to_be_bytes());
        segment.extend(expected.wrapping_sub(distance).to_be_bytes());
        // SYN before the first answer; then mostly ACK.
        let flags = match (expected, number >> 24) {
            (0, 0..240) => 2,
            (_, flags @ 0..64) => flags as u8,
            (_, 64..80) => 0x11,
            _ => 0x10,
        };
        segment.extend([0x50, flags, (number >> 8) as u8, 0, 0, 0, 0, 0]);
        segment.extend(bytes);
        packet(6, &segment)
    }

    /// Notes the sequence numbers of a frame to the guest.
    fn note(&mut self, frame: &[u8]) {
        let length = frame.len();
        assert!((14..=14 + usize::from(MTU)).contains(&length), "{length} bytes");
        if frame[12..14] != [8, 0] || frame[23] != 6 {
            return;
        }
        let number = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        let index = u16::from_be_bytes([frame[36], frame[37]]).wrapping_sub(FIRST);
        let Some(connection) = self.0.get_mut(usize::from(index)) else { return };
        let flags = frame[47];
        let data = length - 34 - usize::from(frame[46] >> 4) * 4;
        let ends = u32::from(flags & 1 != 0) + u32::from(flags & 2 != 0);
        *connection = (number(42), number(38).wrapping_add(data as u32 + ends));
        if flags & 4 != 0 {
            // A reset: the next one begins anew.
            connection.1 = 0;
        }
    }
}

/// A datagram to an echo server, a port without one, or the DHCP server.
fn datagram(host: &Host, number: u32, bytes: &[u8]) -> Vec<u8> {
    let port = match number % 4 {
        0 => 67,
        1 => 1,
        _ => host.datagrams.local_addr().unwrap().port(),
    };
    let source = 1000 + number as u16 / 4 % 512;
    let length = (8 + bytes.len() as u16).to_be_bytes();
    let header = [source.to_be_bytes(), port.to_be_bytes(), length, [0; 2]].concat();
    packet(17, &[&header, bytes].concat())
}
