//! The connection to a debugger, over TCP or a Unix socket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use gdbstub::conn::{Connection as GdbConnection, ConnectionExt};
use nerite_private_socket::PrivateSocket;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::ServerError;

/// The port that is listened on if none is named.
pub const DEFAULT_PORT: u16 = 6677;

/// Address at which the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP port. It is unauthenticated: any process that can connect controls the guest, so the
    /// address should be of this host only.
    Tcp(SocketAddr),
    /// A Unix socket, accessible to this user only.
    Unix(PathBuf),
}

impl Default for Address {
    fn default() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Text that is no [`Address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a port, tcp:ADDRESS:PORT (such as tcp:127.0.0.1:6677) or unix:PATH")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(AddressError) } else { Ok(Self::Unix(path.into())) };
        }
        let text = text.strip_prefix("tcp:").unwrap_or(text);
        let text = text.replacen("localhost:", "127.0.0.1:", 1);
        match text.parse::<u16>() {
            Ok(port) => Ok(Self::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))),
            Err(_) => text.parse().map(Self::Tcp).map_err(|_| AddressError),
        }
    }
}

/// Socket that waits for a debugger.
#[derive(Debug)]
pub(crate) enum Listener {
    /// With its address, which a confined process cannot ask for.
    Tcp(TcpListener, SocketAddr),
    Unix(PrivateSocket),
}

impl Listener {
    /// Listens.
    pub(crate) fn bind(address: &Address) -> Result<Self, ServerError> {
        match address {
            Address::Tcp(tcp) => {
                let failed = |source| ServerError::Bind { address: *tcp, source };
                let listener = TcpListener::bind(tcp).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                Ok(Self::Tcp(listener, address))
            }
            Address::Unix(path) => Ok(Self::Unix(PrivateSocket::bind(path)?)),
        }
    }

    /// The folder of the socket, if it has one.
    pub(crate) fn folder(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(..) => None,
            Self::Unix(socket) => Some(socket.directory()),
        }
    }

    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp(_, address) => address.to_string(),
            Self::Unix(socket) => socket.path().display().to_string(),
        }
    }

    pub(crate) fn accept(&self, end: Arc<OwnedFd>) -> io::Result<Connection> {
        let stream: Box<dyn Stream> = match self {
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(socket) => Box::new(socket.listener().accept()?.0),
        };
        Ok(Connection::new(stream, end))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener, _) => listener.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// A stream of any kind.
pub(crate) trait Stream: Read + Write + AsFd + Send {}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// A debugger's connection. Waiting for it ends with an error when the server ends.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    end: Arc<OwnedFd>,
    /// Received bytes that were not read yet, the next one last.
    input: Vec<u8>,
    output: Vec<u8>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// A connection over `stream`, until `end` is readable.
    pub(crate) fn new(stream: Box<dyn Stream>, end: Arc<OwnedFd>) -> Self {
        Self { stream, end, input: Vec::new(), output: Vec::new() }
    }

    /// Returns `true` if a byte can be read without waiting.
    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// To wait for more.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn fill(&mut self) -> io::Result<()> {
        loop {
            let fd = self.stream.as_fd();
            let mut polled = [
                PollFd::from_borrowed_fd(fd, PollFlags::IN),
                PollFd::new(&*self.end, PollFlags::IN),
            ];
            match poll(&mut polled, None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            let [stream, end] = &polled;
            if stream.revents().is_empty() && !end.revents().is_empty() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    self.input.extend(bytes.iter().take(length).rev());
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl GdbConnection for Connection {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.output.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let output = std::mem::take(&mut self.output);
        self.stream.write_all(&output)
    }
}

impl ConnectionExt for Connection {
    fn read(&mut self) -> io::Result<u8> {
        // An answer that waits is what the other side waits for.
        if !self.output.is_empty() {
            GdbConnection::flush(self)?;
        }
        loop {
            match self.input.pop() {
                Some(byte) => return Ok(byte),
                None => self.fill()?,
            }
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.input.last().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_ports_or_paths() {
        let tcp = |text: &str| Ok(Address::Tcp(text.parse().unwrap()));
        assert_eq!("1234".parse(), tcp("127.0.0.1:1234"));
        assert_eq!("tcp:1234".parse(), tcp("127.0.0.1:1234"));
        assert_eq!("tcp:0.0.0.0:1".parse(), tcp("0.0.0.0:1"));
        assert_eq!("localhost:6677".parse(), Ok(Address::default()));
        assert_eq!("tcp:[::1]:5".parse(), tcp("[::1]:5"));
        assert_eq!("unix:a b".parse(), Ok(Address::Unix("a b".into())));
        for bad in ["", "unix:", "tcp:", "65536", "host", "tcp:host:1", "-1"] {
            assert_eq!(bad.parse::<Address>(), Err(AddressError), "{bad}");
        }
    }
}
