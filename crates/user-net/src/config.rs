//! Configuration of a stack.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

/// Address of the guest, which DHCP gives it.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 5, 3);
/// Address of the guest's gateway: DHCP server, name server and, if asked for, the host.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 5, 1);
/// Bits of the network that guest and gateway are in.
pub const PREFIX: u8 = 24;
/// Ethernet address of the gateway: locally administered.
pub const GATEWAY_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 5, 1];
/// The largest MTU: a packet of IPv4 and its Ethernet header within 64 KiB.
pub const MAX_MTU: u16 = 65_520;

/// Transport protocol of a forwarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Port of the host that leads to one of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address and port of the host to listen on.
    pub host: SocketAddr,
    /// Port of the guest.
    pub guest_port: u16,
}

/// Configuration of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Ethernet address of the guest, until a frame of it shows another one.
    pub mac: [u8; 6],
    /// The largest packet in bytes, without the Ethernet header, up to [`MAX_MTU`].
    pub mtu: u16,
    /// Ports of the host that lead to the guest.
    pub forwards: Vec<Forward>,
    /// `true` if the guest reaches the host's loopback interface at the gateway's address.
    pub reach_host: bool,
    /// Name server that port 53 of the gateway leads to.
    pub name_server: Option<Ipv4Addr>,
}

impl Config {
    /// Address of the host that `address`, as the guest sees it, leads to; `None` if it is refused.
    ///
    /// The guest reaches the loopback interface and this host's unspecified address through the
    /// gateway alone, as those would lead around `reach_host`.
    pub(crate) fn resolve(&self, address: SocketAddrV4) -> Option<SocketAddrV4> {
        let (ip, port) = (*address.ip(), address.port());
        if ip == GATEWAY {
            return match self.name_server {
                Some(server) if port == DNS => Some(SocketAddrV4::new(server, DNS)),
                _ if self.reach_host => Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)),
                _ => None,
            };
        }
        let [first, ..] = ip.octets();
        let is_refused = first == 0 || ip.is_loopback() || first >= 224 || is_local(ip);
        (!is_refused && port != 0).then_some(address)
    }
}

/// Port of name servers.
pub(crate) const DNS: u16 = 53;

/// `true` for an address in the network of guest and gateway.
fn is_local(ip: Ipv4Addr) -> bool {
    let shift = u32::BITS.saturating_sub(PREFIX.into());
    ip.to_bits() >> shift == GATEWAY.to_bits() >> shift
}

/// Address of a client of a forwarded port as the guest sees it: the gateway stands for those that
/// the guest could not answer.
pub(crate) fn visible(client: IpAddr) -> Ipv4Addr {
    match client.to_canonical() {
        IpAddr::V4(ip) if !ip.is_loopback() && !ip.is_unspecified() && !is_local(ip) => ip,
        _ => GATEWAY,
    }
}

/// Returns the first IPv4 name server of this host's `/etc/resolv.conf` (resolv.conf(5)).
#[must_use]
pub fn name_server() -> Option<Ipv4Addr> {
    first_server(&std::fs::read_to_string("/etc/resolv.conf").ok()?)
}

fn first_server(text: &str) -> Option<Ipv4Addr> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(reach_host: bool, name_server: Option<Ipv4Addr>) -> Config {
        Config { mac: [2; 6], mtu: 1500, forwards: Vec::new(), reach_host, name_server }
    }

    #[test]
    fn the_gateway_leads_to_the_host_and_its_name_server_only_if_asked() {
        let server = Ipv4Addr::new(192, 0, 2, 53);
        let gateway = |port| SocketAddrV4::new(GATEWAY, port);
        let host = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        for (reach_host, name_server, port, expected) in [
            (false, None, 80, None),
            (false, None, 53, None),
            (false, Some(server), 53, Some(SocketAddrV4::new(server, 53))),
            (true, Some(server), 53, Some(SocketAddrV4::new(server, 53))),
            (true, Some(server), 80, Some(host(80))),
            (true, None, 53, Some(host(53))),
        ] {
            assert_eq!(config(reach_host, name_server).resolve(gateway(port)), expected);
        }
    }

    #[test]
    fn addresses_that_lead_around_the_gateway_are_refused() {
        for reach_host in [false, true] {
            let resolve = |text: &str| config(reach_host, None).resolve(text.parse().unwrap());
            for refused in [
                "127.0.0.1:80",
                "127.255.0.1:80",
                "0.0.0.0:80",
                "0.1.2.3:80",
                "10.0.5.7:80",
                "224.0.0.1:80",
                "255.255.255.255:80",
                "192.0.2.1:0",
            ] {
                assert_eq!(resolve(refused), None, "{refused}");
            }
            assert_eq!(resolve("192.0.2.1:80"), "192.0.2.1:80".parse().ok());
        }
    }

    #[test]
    fn the_first_ipv4_name_server_is_taken() {
        let text = "# nameserver 1.1.1.1\nsearch x\nnameserver fe80::1\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n";
        assert_eq!(first_server(text), Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(first_server("nameserver\noptions edns0\n"), None);
    }
}
