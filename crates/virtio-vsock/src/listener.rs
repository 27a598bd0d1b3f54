//! The host's side: the socket that clients connect to, and those beside it that guests do.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nerite_event::Sources;
use nerite_private_socket::{BindError, PrivateSocket, SocketName};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, connect, socket_with,
};

use crate::source::Source;

/// The Unix socket of a device, and everything else that it needs of its host, opened.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    /// Path of the socket, to which a port is added.
    path: PathBuf,
    name: Option<SocketName>,
    pub(crate) sources: Sources<Source>,
}

impl Listener {
    /// Makes the socket at `path`, accessible to this user only.
    ///
    /// A socket without a listener is replaced.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Bind { path: path.to_owned(), source };
        let (listener, name) = PrivateSocket::bind(path)?.into_parts();
        let sources = Sources::new().map_err(failed)?;
        sources.add(&listener, Source::Listener).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), name: Some(name), sources })
    }

    /// Directory of the socket, unless [`Self::take_name`] has been called.
    pub fn folder(&self) -> Option<BorrowedFd<'_>> {
        self.name.as_ref().map(SocketName::directory)
    }

    /// Has the sockets that guests connect to looked for in the working directory, which the
    /// process has changed to [`Self::folder`].
    pub fn use_working_directory(&mut self) {
        if let Some(name) = self.path.file_name() {
            self.path = name.into();
        }
    }

    /// The name of the socket, to be removed by the caller. Otherwise it goes with this value.
    pub fn take_name(&mut self) -> Option<SocketName> {
        self.name.take()
    }

    /// The descriptor that is readable once something has happened.
    pub(crate) fn events(&self) -> Arc<OwnedFd> {
        self.sources.shared_fd()
    }

    /// Takes the next client.
    pub(crate) fn accept(&self) -> rustix::io::Result<OwnedFd> {
        accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
    }

    /// Connects to the socket of `port`.
    pub(crate) fn connect(&self, port: u32) -> rustix::io::Result<OwnedFd> {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{port}"));
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // It is connected, or fails, at once.
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    }

    /// Watches a connection.
    pub(crate) fn watch(&self, socket: &OwnedFd, id: u64) -> io::Result<()> {
        self.sources.add(socket, Source::Connection(id))
    }
}
