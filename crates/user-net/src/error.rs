//! Errors of starting a stack.

use std::io;
use std::net::SocketAddr;

/// A stack cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A forwarded port cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Address and port of the host.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// Another call of the host failed.
    #[error("cannot make {what} for user-mode networking")]
    Host {
        /// Object that was to be made.
        what: &'static str,
        /// Cause.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn host<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Host { what, source: source.into() }
    }
}
