//! DHCP server (RFC 2131) of one client.

use std::net::Ipv4Addr;

use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, Ipv4Packet, UdpPacket};

use crate::config::{GATEWAY, GUEST, PREFIX};
use crate::link::Link;
use crate::udp::reply;

/// Port of servers.
pub(crate) const SERVER: u16 = 67;
/// Port of clients.
const CLIENT: u16 = 68;
/// Seconds of a lease.
const LEASE: u32 = 86_400;
/// Option of the MTU (RFC 2132, 5.1).
const MTU: u8 = 26;

/// Answers a packet of the guest to the server's port.
pub(crate) fn answer(packet: &Ipv4Packet<&[u8]>, mtu: u16, link: &mut Link) {
    let Ok(datagram) = UdpPacket::new_checked(packet.payload()) else { return };
    let Ok(message) = DhcpPacket::new_checked(datagram.payload()) else { return };
    let Ok(request) = DhcpRepr::parse(&message) else { return };
    let wanted = request.requested_ip.unwrap_or(request.client_ip);
    let message_type = match request.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        // One that was made to another server (4.3.2).
        DhcpMessageType::Request if request.server_identifier.is_some_and(|ip| ip != GATEWAY) => {
            return;
        }
        DhcpMessageType::Request if wanted != GUEST => DhcpMessageType::Nak,
        DhcpMessageType::Request | DhcpMessageType::Inform => DhcpMessageType::Ack,
        _ => return,
    };
    let is_refused = message_type == DhcpMessageType::Nak;
    let is_lease = !is_refused && request.message_type != DhcpMessageType::Inform;
    let mtu = mtu.to_be_bytes();
    let options = [DhcpOption { kind: MTU, data: &mtu }];
    let servers = [GATEWAY].into_iter().collect();
    let mask = u32::MAX << u32::BITS.saturating_sub(PREFIX.into());
    let answer = DhcpRepr {
        message_type,
        your_ip: if is_lease { GUEST } else { Ipv4Addr::UNSPECIFIED },
        server_ip: if is_refused { Ipv4Addr::UNSPECIFIED } else { GATEWAY },
        router: (!is_refused).then_some(GATEWAY),
        subnet_mask: (!is_refused).then_some(Ipv4Addr::from_bits(mask)),
        server_identifier: Some(GATEWAY),
        dns_servers: (!is_refused).then_some(servers),
        lease_duration: is_lease.then_some(LEASE),
        additional_options: if is_refused { &[] } else { &options },
        requested_ip: None,
        client_identifier: None,
        parameter_request_list: None,
        max_size: None,
        renew_duration: None,
        rebind_duration: None,
        secs: 0,
        ..request.clone()
    };
    // A client without an address may ask for a broadcast (4.1).
    let target = if request.client_ip != Ipv4Addr::UNSPECIFIED && !is_refused {
        request.client_ip
    } else if request.broadcast || is_refused {
        Ipv4Addr::BROADCAST
    } else {
        answer.your_ip
    };
    reply(link, (GATEWAY, SERVER), (target, CLIENT), answer.buffer_len(), |bytes| {
        if let Err(error) = answer.emit(&mut DhcpPacket::new_unchecked(bytes)) {
            log::error!("an answer of DHCP: {error}");
        }
    });
}
