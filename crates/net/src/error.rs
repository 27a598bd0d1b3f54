//! Errors of connecting a card.

use std::io;

/// A card cannot be connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device file of taps cannot be opened.
    #[error("cannot open /dev/net/tun")]
    OpenTun(#[source] io::Error),
    /// The tap cannot be attached to.
    #[error("cannot use the tap {name}{}", refusal.note())]
    Tap {
        /// The interface.
        name: String,
        /// Cause.
        source: io::Error,
        /// The cause in terms of taps.
        refusal: TapRefusal,
    },
    /// A descriptor is no tap that can be used.
    #[error("descriptor {fd} is not a tap that a card can use: {reason}")]
    Descriptor {
        /// Its number.
        fd: i32,
        /// Requirement that it does not meet.
        reason: String,
    },
    /// The interface's largest packet cannot be set.
    #[error("cannot set the MTU of {name} to {mtu}")]
    Mtu {
        /// The interface.
        name: String,
        /// MTU that was to be set.
        mtu: u16,
        /// Cause.
        source: io::Error,
    },
    /// vhost-net cannot be used.
    #[error("cannot use vhost-net")]
    Vhost {
        /// Cause.
        source: io::Error,
    },
    /// User-mode networking cannot be started.
    #[error(transparent)]
    User(#[from] nerite_user_net::Error),
    /// Another call of the host failed.
    #[error("{what}")]
    Host {
        /// Operation that failed.
        what: &'static str,
        /// Cause.
        source: io::Error,
    },
}

/// Reason that a tap cannot be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TapRefusal {
    /// The process may not create the tap, or the tap belongs to another user.
    Permission,
    /// Another process is attached to it.
    Busy,
    /// It has one queue, and several were asked for.
    SingleQueue,
    /// It is no tap, or carries packets and not Ethernet frames.
    NotATap,
    /// Another reason, which the error number tells.
    Other,
}

impl TapRefusal {
    /// Reason for the error of an attempt with one queue or several.
    pub(crate) fn of(error: &io::Error, several: bool) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM) => Self::Permission,
            Some(libc::EBUSY) => Self::Busy,
            Some(libc::EINVAL) if several => Self::SingleQueue,
            Some(libc::EINVAL) => Self::NotATap,
            _ => Self::Other,
        }
    }

    /// The part of the message that the error number does not tell.
    fn note(self) -> &'static str {
        match self {
            Self::Busy => " (another process has it)",
            Self::SingleQueue => " (it has one queue)",
            Self::NotATap => " (it is no tap, or carries packets and not Ethernet frames)",
            Self::Permission | Self::Other => "",
        }
    }
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
