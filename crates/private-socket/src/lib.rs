#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Number of connections that may wait to be accepted; that of the standard library.
const BACKLOG: i32 = 128;

/// Error of making a socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process listens there.
    #[error("{}: another process listens on this socket; choose another path", .0.display())]
    InUse(PathBuf),
    /// Something else than a socket is there.
    #[error("{}: there is something else than a socket; choose another path", .0.display())]
    NotSocket(PathBuf),
    /// The socket cannot be made.
    #[error("{}: cannot make the socket", path.display())]
    Bind {
        /// Path of the socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// A Unix socket that clients can connect to. It does not block.
#[derive(Debug)]
pub struct PrivateSocket {
    listener: UnixListener,
    name: SocketName,
}

/// The name of a socket, which is removed when this is dropped.
#[derive(Debug)]
pub struct SocketName {
    path: PathBuf,
    directory: OwnedFd,
}

impl PrivateSocket {
    /// Makes the socket at `path`, accessible to this user only.
    ///
    /// A socket without a listener is replaced.
    ///
    /// # Errors
    /// If another process listens there, or it cannot be made.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Bind { path: path.to_owned(), source };
        let listener = match bind_private(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // A file of another kind refuses a connection, too, and is not ours to remove.
                if !fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
                    return Err(BindError::NotSocket(path.to_owned()));
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
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed(error.into()))?;
        Ok(Self { listener, name: SocketName { path: path.to_owned(), directory } })
    }

    /// The socket itself.
    #[must_use]
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Path at which the socket was made.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.name.path
    }

    /// The directory that the socket is removed from in the end.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.name.directory()
    }

    /// The socket and its name, which may be removed at another time than the socket is closed.
    #[must_use]
    pub fn into_parts(self) -> (UnixListener, SocketName) {
        (self.listener, self.name)
    }
}

impl SocketName {
    /// The directory that the name is in.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl AsFd for PrivateSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for SocketName {
    fn drop(&mut self) {
        let Some(name) = self.path.file_name() else { return };
        if let Err(error) = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            log::debug!("removing the socket {}: {error}", self.path.display());
        }
    }
}

/// Binds a socket that is this user's from the first moment. Linux gives the name the mode of the
/// socket's own inode, so that the file mode creation mask of the process, which all of its threads
/// share, is left alone.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let socket = net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn only_this_user_can_connect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = PrivateSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(socket.listener().accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn other_threads_make_files_with_their_own_modes_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let made = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2000 {
                    drop(PrivateSocket::bind(&path).unwrap());
                }
                made.store(true, Ordering::Release);
            });
            while !made.load(Ordering::Acquire) {
                let inner = folder.path().join("inner");
                fs::create_dir(&inner).unwrap();
                let mode = fs::metadata(&inner).unwrap().permissions().mode();
                fs::remove_dir(&inner).unwrap();
                assert_eq!(mode & 0o100, 0o100, "mode {mode:o}");
            }
        });
    }

    #[test]
    fn a_socket_is_replaced_once_its_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (listener, name) = PrivateSocket::bind(&path).unwrap().into_parts();
        let error = PrivateSocket::bind(&path).unwrap_err();
        assert!(matches!(&error, BindError::InUse(used) if *used == path), "{error}");
        // A process that was killed leaves the name.
        std::mem::forget(name);
        drop(listener);
        assert!(path.exists());
        PrivateSocket::bind(&path).unwrap();
    }

    #[test]
    fn other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "text").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for path in [&file, &link, &folder.path().to_owned()] {
            let error = PrivateSocket::bind(path).unwrap_err();
            assert!(matches!(error, BindError::NotSocket(_)), "{error}");
        }
        let long = folder.path().join("x".repeat(200));
        let error = PrivateSocket::bind(&long).unwrap_err();
        assert!(matches!(error, BindError::Bind { .. }), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"text");
        assert!(link.is_symlink());
    }

    #[test]
    fn the_name_goes_though_its_directory_has_another() {
        let folder = tempfile::tempdir().unwrap();
        let (before, after) = (folder.path().join("before"), folder.path().join("after"));
        fs::create_dir(&before).unwrap();
        let socket = PrivateSocket::bind(&before.join("socket")).unwrap();
        fs::rename(&before, &after).unwrap();
        drop(socket);
        assert_eq!(fs::read_dir(&after).unwrap().count(), 0);
    }
}
