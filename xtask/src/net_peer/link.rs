//! Links of a guest's card to the host, and the addresses behind them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The tap that is used.
pub(crate) const TAP: &str = "nerite0";
/// The guest's address.
pub(super) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 5, 3);
/// Ports of this host that lead to the guest's in user mode are higher by this.
const FORWARDED: u16 = 10_000;
/// The ports of the guest: TCP and UDP.
pub(super) const TCP_PORTS: [u16; 3] = [7, 9, 19];
const UDP_PORTS: [u16; 2] = [7, 99];

/// Link of the guest's card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Link {
    /// A tap.
    Tap,
    /// A tap that the host's kernel works on.
    Vhost,
    /// User mode, as an ordinary user.
    User,
    /// User mode, as root, on a host without a default route.
    Offline,
    /// A tap that another program opens and passes on.
    Fd,
}

impl Link {
    /// Value of `--net`.
    pub(super) fn spec(self, options: &str) -> String {
        let mut spec = match self {
            // The program puts its descriptor in this place.
            Self::Fd => "fd=TAP".to_owned(),
            Self::Tap => format!("tap={TAP}"),
            Self::Vhost => format!("tap={TAP},vhost=on"),
            Self::User | Self::Offline => {
                let tcp = TCP_PORTS.map(|port| format!(",hostfwd=tcp:{}:{port}", port + FORWARDED));
                let udp = UDP_PORTS.map(|port| format!(",hostfwd=udp:{}:{port}", port + FORWARDED));
                format!("user{}{}", tcp.concat(), udp.concat())
            }
        };
        if !options.is_empty() {
            spec.push(',');
            spec.push_str(options);
        }
        spec
    }

    /// Name of the card for `vmm ctl`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tap | Self::Vhost | Self::Fd => TAP,
            Self::User | Self::Offline => "user",
        }
    }

    /// `true` if ports of the host lead to the guest's.
    pub(crate) fn is_user_mode(self) -> bool {
        matches!(self, Self::User | Self::Offline)
    }

    /// Address at which the guest's port is reached.
    pub(super) fn address(self, port: u16) -> SocketAddr {
        match self {
            Self::Tap | Self::Vhost | Self::Fd => (IpAddr::V4(GUEST), port).into(),
            Self::User | Self::Offline => {
                (IpAddr::V4(Ipv4Addr::LOCALHOST), port + FORWARDED).into()
            }
        }
    }
}
