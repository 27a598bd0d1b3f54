//! Connections to the guest.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result};

use super::Link;

/// Time limit of everything that is not a long transfer.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// In user mode it is not the guest that takes a connection at first, and one that it refuses ends
/// later. So it gets the time that its sockets need after another connection.
const PAUSE: Duration = Duration::from_millis(200);

impl Link {
    /// A connection to the guest's port.
    pub(super) fn connect(self, port: u16) -> Result<TcpStream> {
        if self == Self::User {
            thread::sleep(PAUSE);
        }
        self.connect_now(port)
    }

    /// As [`Link::connect`], without the pause: in user mode the guest may still refuse it.
    pub(super) fn connect_now(self, port: u16) -> Result<TcpStream> {
        let address = self.address(port);
        // All of the guest's sockets may be in use for a moment.
        let connect = || Ok(TcpStream::connect_timeout(&address, PATIENCE)?);
        let stream = insist(&[ErrorKind::ConnectionRefused], connect)
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Errors of a connection that the guest refuses only after it has been made.
    pub(super) fn late_refusals(self) -> &'static [ErrorKind] {
        // What is done to a socket after that fails in these ways.
        const LATE: [ErrorKind; 3] =
            [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::NotConnected];
        if self == Self::User { &LATE } else { &[] }
    }
}

/// Makes the attempt again while the guest refuses, which these kinds of error mean, and patience
/// lasts.
pub(super) fn insist<T>(
    refusals: &[ErrorKind],
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    let is_refusal = |error: &Error| {
        error.downcast_ref::<io::Error>().is_some_and(|error| refusals.contains(&error.kind()))
    };
    loop {
        match attempt() {
            Err(error) if is_refusal(&error) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}
