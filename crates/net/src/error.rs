//! Errors of connecting a card.

use std::io;

/// A card cannot be connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no way to taps at all.
    #[error("cannot open /dev/net/tun: {0}; load the module tun, or use --net user, which needs no tap")]
    NoTun(#[source] io::Error),
    /// The tap cannot be attached to.
    #[error("cannot use the tap {name}: {source}; {advice}")]
    Tap {
        /// The interface.
        name: String,
        /// Cause.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// A descriptor is no tap that can be used.
    #[error("--net fd={fd}: this descriptor is not a tap that a card can use: {reason}")]
    Descriptor {
        /// Its number.
        fd: i32,
        /// Requirement that it does not meet.
        reason: String,
    },
    /// The interface's largest packet cannot be set.
    #[error(
        "cannot set the MTU of {name} to {mtu}: {source}; set it before, as root, with `ip link set {name} mtu {mtu}`"
    )]
    Mtu {
        /// The interface.
        name: String,
        /// MTU that was to be set.
        mtu: u16,
        /// Cause.
        source: io::Error,
    },
    /// There is no vhost-net.
    #[error(
        "cannot use vhost-net: {source}; load the module vhost_net and allow this user /dev/vhost-net, or leave vhost=on away"
    )]
    Vhost {
        /// Cause.
        source: io::Error,
    },
    /// There is no passt.
    #[error(
        "user mode networking needs the program passt, and it cannot be started: {0}; install the package passt, or use a tap"
    )]
    NoPasst(#[source] io::Error),
    /// Passt has ended at once.
    #[error("passt, which user mode networking needs, has ended at once: {0}")]
    Passt(String),
    /// Something else of the host failed.
    #[error("{what}: {source}")]
    Host {
        /// Operation that failed.
        what: &'static str,
        /// Cause.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn host<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Host { what, source: source.into() }
    }

    /// Returns `true` if the configuration is at fault, and not the host.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Descriptor { .. })
    }
}
