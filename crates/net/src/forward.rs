//! Ports of the host that lead to the guest.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

pub use nerite_user_net::Protocol;

/// Text that describes no forwarded port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be forwarded: write PROTOCOL:HOSTPORT:GUESTPORT such as tcp:8080:80, or tcp:0.0.0.0/8080:80 to listen elsewhere than at 127.0.0.1"
)]
pub struct ForwardError(String);

/// A port of the host that leads to one of the guest: `tcp:8080:80`, or `tcp:0.0.0.0/8080:80` for
/// an address other than the loopback interface's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The host's address to listen at; none is 127.0.0.1.
    pub address: Option<IpAddr>,
    /// The port of the host.
    pub host_port: u16,
    /// The port of the guest.
    pub guest_port: u16,
}

impl FromStr for Forward {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let error = || ForwardError(text.to_owned());
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
