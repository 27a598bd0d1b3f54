//! The host's side: the socket that clients connect to, and those beside it that guests do.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, connect, socket_with,
};

use crate::sources::{Source, Sources};

/// Error of making the socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process listens there.
    #[error("{}: another process listens on this socket; choose another path", .0.display())]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error("{}: cannot make the vsock socket", path.display())]
    Bind {
        /// Path of the socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// The Unix socket of a device, and everything else that it needs of its host, opened.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    /// Path of the socket, to which a port is added.
    path: PathBuf,
    file: Option<SocketFile>,
    pub(crate) sources: Sources,
}

/// Name of a socket, which is removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    /// Directory of the socket; used to unlink it after chroot.
    folder: OwnedFd,
    name: OsString,
}

impl Listener {
    /// Makes the socket at `path`, accessible to this user only. Call it while the process has one
    /// thread: the file mode creation mask is changed for a moment.
    ///
    /// A socket without a listener is replaced.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Bind { path: path.to_owned(), source };
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput.into()).map_err(failed)?;
        let listener = match bind_private(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // A file of another kind is not ours to remove.
                if !fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
                    return Err(failed(error));
                }
                match UnixStream::connect(path) {
                    Ok(_) => return Err(BindError::InUse(path.to_owned())),
                    Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(_) => return Err(failed(error)),
                }
                fs::remove_file(path).map_err(failed)?;
                bind_private(path).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        listener.set_nonblocking(true).map_err(failed)?;
        let folder =
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed(error.into()))?;
        let sources = Sources::new().map_err(failed)?;
        sources.add(&listener, Source::Listener).map_err(|error| failed(error.into()))?;
        let file = Some(SocketFile { folder, name: name.to_owned() });
        Ok(Self { listener, path: path.to_owned(), file, sources })
    }

    /// Directory of the socket, unless [`Self::take_file`] has been called.
    pub fn folder(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(|file| file.folder.as_fd())
    }

    /// Has the sockets that guests connect to looked for in the working directory, which the
    /// process has changed to [`Self::folder`].
    pub fn use_working_directory(&mut self) {
        if let Some(name) = self.path.file_name() {
            self.path = name.into();
        }
    }

    /// The name of the socket, to be removed by the caller. Otherwise it goes with this value.
    pub fn take_file(&mut self) -> Option<SocketFile> {
        self.file.take()
    }

    /// The descriptor that is readable once something has happened.
    pub(crate) fn events(&self) -> Arc<OwnedFd> {
        self.sources.fd()
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
    pub(crate) fn watch(&self, socket: &OwnedFd, id: u64) -> rustix::io::Result<()> {
        self.sources.add(socket, Source::Connection(id))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty()) {
            log::debug!("removing the socket {}: {error}", self.name.display());
        }
    }
}

fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let mask = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    listener
}
