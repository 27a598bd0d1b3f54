//! Connections to the guest.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Link;
use super::exercises::PATIENCE;

/// In user mode it is not the guest that takes a connection at first, and one that it refuses ends later. So it gets the time that its
/// sockets need after another connection.
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
        let deadline = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.set_write_timeout(Some(PATIENCE))?;
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                // All of the guest's sockets may be in use for a moment.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(error) => return Err(error).with_context(|| format!("connecting to {address}")),
            }
        }
    }
}

/// Whether the other side has ended a connection before it should.
pub(super) fn is_reset(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
}
