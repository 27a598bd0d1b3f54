//! Description of a network card as text.

use std::fmt;
use std::str::FromStr;

use nerite_virtio_net::Mac;

use crate::{Forward, ForwardError};

/// The longest name of an interface, in bytes.
const MAX_NAME: usize = 15;
/// The largest number of queue pairs.
const MAX_QUEUES: u16 = 16;
/// The smallest and largest packet: what IPv4 asks for at least, and what fits an Ethernet frame of
/// 64 KiB.
const MTU: std::ops::RangeInclusive<u16> = 68..=65_521;

/// Link of a card to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// A tap of the host.
    Tap {
        /// Its name.
        name: String,
        /// `true` if the host's kernel works on the queues.
        vhost: bool,
    },
    /// A tap that is open already.
    Fd {
        /// The descriptor's number.
        fd: i32,
        /// `true` if the host's kernel works on the queues.
        vhost: bool,
    },
    /// Connections of a process.
    User {
        /// Ports of the host that lead to the guest.
        forwards: Vec<Forward>,
        /// `true` if the guest reaches the host's loopback interface at its gateway's address.
        host: bool,
    },
}

/// A card: `tap=NAME`, `fd=N` or `user`, then options, with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Link to the host.
    pub link: Link,
    /// Its address; none is one made from the link's name and the host.
    pub mac: Option<Mac>,
    /// Number of queue pairs, at most one for each vCPU; 1 by default.
    pub queues: Option<u16>,
    /// The largest packet; none is what the link has.
    pub mtu: Option<u16>,
}

/// Text that describes no card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The link is missing or unknown.
    #[error("{0:?}: say what the network card is connected to: tap=NAME, fd=N or user")]
    Link(String),
    /// A name that no interface has.
    #[error(
        "{0:?} is no name of a network interface: 1 to 15 characters, without slash, colon or white space"
    )]
    Name(String),
    /// An option that is not known, or not with this link.
    #[error("{option:?} is no option of {link}; there are: {known}")]
    Option {
        /// The option.
        option: String,
        /// The kind of link.
        link: &'static str,
        /// Known options, with commas.
        known: &'static str,
    },
    /// An option twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// A value that an option cannot have.
    #[error("{value:?} cannot be the value of {option}: {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// Description of valid values.
        expected: &'static str,
    },
    /// No port to forward.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// No address of a card.
    #[error(transparent)]
    Mac(#[from] nerite_virtio_net::MacError),
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (first, options) = text.split_once(',').unwrap_or((text, ""));
        let mut spec = Self { link: link(first)?, mac: None, queues: None, mtu: None };
        let mut seen = Vec::new();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            if key != "hostfwd" && seen.contains(&key) {
                return Err(SpecError::Twice(key.to_owned()));
            }
            seen.push(key);
            spec.set(key, value)?;
        }
        Ok(spec)
    }
}

/// `tap=NAME`, `fd=N` or `user`; a colon does as well, as other programs spell it.
fn link(text: &str) -> Result<Link, SpecError> {
    let (kind, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
    match kind {
        "tap" => {
            let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
            if value.is_empty()
                || value.len() > MAX_NAME
                || value.contains(bad)
                || matches!(value, "." | "..")
            {
                return Err(SpecError::Name(value.to_owned()));
            }
            Ok(Link::Tap { name: value.to_owned(), vhost: false })
        }
        "fd" => match value.parse() {
            // Standard input, output and error are no taps.
            Ok(fd) if fd > 2 => Ok(Link::Fd { fd, vhost: false }),
            _ => Err(SpecError::Value {
                option: "fd",
                value: value.to_owned(),
                expected: "the number of an open descriptor, 3 or more",
            }),
        },
        "user" if value.is_empty() => Ok(Link::User { forwards: Vec::new(), host: false }),
        _ => Err(SpecError::Link(text.to_owned())),
    }
}

impl Spec {
    fn set(&mut self, key: &str, value: &str) -> Result<(), SpecError> {
        match (key, &mut self.link) {
            ("mac", _) => self.mac = Some(value.parse()?),
            ("mtu", _) => {
                let mtu = value.parse().ok().filter(|mtu| MTU.contains(mtu));
                self.mtu = Some(mtu.ok_or_else(|| bad("mtu", value, "bytes, 68 to 65521"))?);
            }
            ("queues", Link::Tap { .. }) => {
                let queues = value.parse().ok().filter(|queues| (1..=MAX_QUEUES).contains(queues));
                self.queues = Some(queues.ok_or_else(|| bad("queues", value, "1 to 16"))?);
            }
            ("vhost", Link::Tap { vhost, .. } | Link::Fd { vhost, .. }) => {
                *vhost = switch("vhost", value)?
            }
            ("host", Link::User { host, .. }) => *host = switch("host", value)?,
            ("hostfwd", Link::User { forwards, .. }) => forwards.push(value.parse()?),
            (_, link) => {
                let (link, known) = match link {
                    Link::Tap { .. } => ("tap", "mac, mtu, queues, vhost"),
                    Link::Fd { .. } => ("fd", "mac, mtu, vhost"),
                    Link::User { .. } => ("user", "hostfwd, host, mac, mtu"),
                };
                return Err(SpecError::Option { option: key.to_owned(), link, known });
            }
        }
        Ok(())
    }
}

fn bad(option: &'static str, value: &str, expected: &'static str) -> SpecError {
    SpecError::Value { option, value: value.to_owned(), expected }
}

fn switch(option: &'static str, value: &str) -> Result<bool, SpecError> {
    match value {
        "on" | "" => Ok(true),
        "off" => Ok(false),
        _ => Err(bad(option, value, "on or off")),
    }
}

/// The shortest text that means the same.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vhost = match &self.link {
            Link::Tap { name, vhost } => write!(f, "tap={name}").map(|()| *vhost),
            Link::Fd { fd, vhost } => write!(f, "fd={fd}").map(|()| *vhost),
            Link::User { .. } => f.write_str("user").map(|()| false),
        }?;
        if vhost {
            f.write_str(",vhost=on")?;
        }
        if let Link::User { forwards, host } = &self.link {
            for forward in forwards {
                write!(f, ",hostfwd={forward}")?;
            }
            if *host {
                f.write_str(",host=on")?;
            }
        }
        self.mac.iter().try_for_each(|mac| write!(f, ",mac={mac}"))?;
        self.queues.iter().try_for_each(|queues| write!(f, ",queues={queues}"))?;
        self.mtu.iter().try_for_each(|mtu| write!(f, ",mtu={mtu}"))
    }
}

#[cfg(test)]
#[path = "spec_test.rs"]
mod tests;
