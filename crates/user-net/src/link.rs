//! Link to the guest: frames that wait for it, and the packet that came from it.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken,
};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Ipv4Packet,
    Ipv4Repr,
};

use crate::config::{GATEWAY, GATEWAY_MAC};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of frames that may wait for the guest before connections and flows have to.
const ROOM: usize = 512 << 10;
/// Frames that may.
const FRAMES: usize = 512;
/// Buffers kept for frames to come.
const SPARE: usize = 64;

/// Checksums: packets of the guest reach this stack through memory, and what the guest leaves out
/// for its card to fill in is not there.
pub(crate) fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::ignored();
    checksums.ipv4 = Checksum::Tx;
    checksums.tcp = Checksum::Tx;
    checksums.udp = Checksum::Tx;
    checksums.icmpv4 = Checksum::Tx;
    checksums
}

/// Link to the guest.
#[derive(Debug)]
pub(crate) struct Link {
    /// Ethernet address of the guest.
    pub(crate) mac: EthernetAddress,
    mtu: usize,
    queue: VecDeque<Vec<u8>>,
    /// Bytes of the queue.
    bytes: usize,
    spare: Vec<Vec<u8>>,
    /// Packet of the guest that smoltcp takes next.
    packet: Option<Vec<u8>>,
}

impl Link {
    pub(crate) fn new(mac: [u8; 6], mtu: u16) -> Self {
        Self {
            mac: EthernetAddress(mac),
            mtu: mtu.into(),
            queue: VecDeque::new(),
            bytes: 0,
            spare: Vec::new(),
            packet: None,
        }
    }

    /// `true` if a sender need not wait.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < ROOM && self.queue.len() < FRAMES
    }

    /// `true` if there are frames for the guest.
    pub(crate) fn has_frames(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes the next frame for the guest.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let frame = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(frame.len());
        Some(frame)
    }

    /// Takes the buffer of a frame that has been delivered.
    pub(crate) fn recycle(&mut self, frame: Vec<u8>) {
        if self.spare.len() < SPARE {
            self.spare.push(frame);
        }
    }

    /// Drops all frames for the guest.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.bytes = 0;
    }

    /// Hands `packet` to smoltcp at its next look.
    pub(crate) fn offer(&mut self, packet: &[u8]) {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet);
        self.packet = Some(buffer);
    }

    /// Queues a frame of `length` bytes after the Ethernet header. Beyond twice the room it is
    /// dropped: replies to what the guest sends need not wait, but are limited, too.
    fn push<R>(
        &mut self,
        protocol: EthernetProtocol,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.resize(ETHERNET.saturating_add(length), 0);
        let mut frame = EthernetFrame::new_unchecked(&mut buffer[..]);
        frame.set_dst_addr(self.mac);
        frame.set_src_addr(EthernetAddress(GATEWAY_MAC));
        frame.set_ethertype(protocol);
        let result = fill(frame.payload_mut());
        if self.bytes < ROOM.saturating_mul(2) && self.queue.len() < FRAMES.saturating_mul(2) {
            self.bytes = self.bytes.saturating_add(buffer.len());
            self.queue.push_back(buffer);
        }
        result
    }

    /// Queues an ARP packet of the gateway (RFC 826).
    pub(crate) fn push_arp(
        &mut self,
        operation: ArpOperation,
        target: (EthernetAddress, Ipv4Addr),
    ) {
        let packet = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(GATEWAY_MAC),
            source_protocol_addr: GATEWAY,
            target_hardware_addr: target.0,
            target_protocol_addr: target.1,
        };
        self.push(EthernetProtocol::Arp, packet.buffer_len(), |bytes| {
            packet.emit(&mut ArpPacket::new_unchecked(bytes));
        });
    }

    /// Queues an IPv4 packet, unless it is larger than the MTU. `fill` makes its payload.
    pub(crate) fn push_packet(&mut self, header: &Ipv4Repr, fill: impl FnOnce(&mut [u8])) {
        let length = header.buffer_len().saturating_add(header.payload_len);
        if length > self.mtu {
            log::debug!("a packet of {length} bytes for the guest is larger than its MTU");
            return;
        }
        self.push(EthernetProtocol::Ipv4, length, |bytes| {
            let mut packet = Ipv4Packet::new_unchecked(bytes);
            header.emit(&mut packet, &checksums());
            fill(packet.payload_mut());
        });
    }
}

impl Device for Link {
    type RxToken<'a> = Received;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Transmit<'_>)> {
        let packet = self.packet.take()?;
        Some((Received(packet), Transmit(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_>> {
        self.has_room().then_some(Transmit(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = checksums();
        capabilities
    }
}

/// A packet of the guest.
pub(crate) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a packet to the guest.
pub(crate) struct Transmit<'a>(&'a mut Link);

impl TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        self.0.push(EthernetProtocol::Ipv4, length, f)
    }
}
