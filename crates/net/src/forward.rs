//! Ports of the host that lead to the guest.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::SpecError;

/// What is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A port of the host that leads to one of the guest: `tcp:8080:80`, or `tcp:0.0.0.0/8080:80` for
/// an address other than the loopback interface's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// What is forwarded.
    pub protocol: Protocol,
    /// The host's address to listen at; none is 127.0.0.1.
    pub address: Option<IpAddr>,
    /// The port of the host.
    pub host_port: u16,
    /// The port of the guest.
    pub guest_port: u16,
}

impl FromStr for Forward {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let error = || SpecError::Forward(text.to_owned());
        let (protocol, rest) = text.split_once(':').ok_or_else(error)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(error()),
        };
        let (address, ports) = match rest.rsplit_once('/') {
            Some((address, ports)) => (Some(address.parse().map_err(|_| error())?), ports),
            None => (None, rest),
        };
        let (host, guest) = ports.split_once(':').ok_or_else(error)?;
        let port = |text: &str| text.parse().ok().filter(|port| *port != 0).ok_or_else(error);
        Ok(Self { protocol, address, host_port: port(host)?, guest_port: port(guest)? })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.protocol {
            Protocol::Tcp => "tcp:",
            Protocol::Udp => "udp:",
        })?;
        if let Some(address) = self.address {
            write!(f, "{address}/")?;
        }
        write!(f, "{}:{}", self.host_port, self.guest_port)
    }
}
