//! The side of the machine: a socket, and one thread for all who connect to it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nerite_service::ControlTarget;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::connection::Connection;
use crate::descriptors;
use crate::request_handler::RequestHandler;

/// Maximum number of clients at a time; more wait.
const MAX_CLIENTS: usize = 16;
/// Time without new connections after one could not be accepted, as when the process has no
/// descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Error of starting a control socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Another machine listens there.
    #[error("{}: another process listens on this socket; choose another path", .0.display())]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error("{}: cannot make the control socket", path.display())]
    Bind {
        /// Path of the socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The thread cannot be started.
    #[error("cannot start the thread of the control socket")]
    Thread(#[source] io::Error),
}

/// A control socket that is not answered yet.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Directory of the socket; used to unlink it after chroot.
    folder: OwnedFd,
}

impl Server {
    /// Makes the socket, accessible to this user only. Call it while the process has one thread:
    /// the file mode creation mask is changed for a moment.
    ///
    /// A socket without a listener is replaced.
    ///
    /// # Errors If it cannot be made.
    pub fn bind(path: &Path) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Bind { path: path.to_owned(), source };
        let listener = match bind_private(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // A file of another kind refuses a connection, too, and is not ours to remove.
                if !fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
                    return Err(failed(error));
                }
                match UnixStream::connect(path) {
                    Ok(_) => return Err(ServerError::InUse(path.to_owned())),
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
        Ok(Self { listener, path: path.to_owned(), folder })
    }

    /// The socket, which does not block, for a server of another kind.
    #[must_use]
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Directory of the socket, from which it is removed in the end.
    #[must_use]
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Starts to answer for this machine.
    ///
    /// # Errors
    /// If the host has no thread or descriptor left.
    pub fn start(self, machine: Box<dyn ControlTarget>) -> Result<Serving, ServerError> {
        let end =
            eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| ServerError::Thread(error.into()))?;
        let end = Arc::new(end);
        let path = self.path.clone();
        let folder = self.folder.try_clone().map_err(ServerError::Thread)?;
        let thread = thread::Builder::new().name("control".to_owned()).spawn({
            let end = end.clone();
            move || match machine.confine_thread() {
                Ok(()) => self.serve(RequestHandler::new(machine), &end),
                Err(error) => log::error!("the control socket is closed: {error}"),
            }
        });
        Ok(Serving { end, path, folder, thread: Some(thread.map_err(ServerError::Thread)?) })
    }

    fn serve(&self, mut handler: RequestHandler, end: &OwnedFd) {
        let mut clients: Vec<Client> = Vec::new();
        // When connections are accepted again, after the host had no descriptor left.
        let mut accepting: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let accepts = clients.len() < MAX_CLIENTS && accepting.is_none_or(|time| now >= time);
            let mut polled = vec![PollFd::new(end, PollFlags::IN)];
            polled
                .extend(clients.iter().map(|client| PollFd::new(&client.stream, client.events())));
            if accepts {
                polled.push(PollFd::new(&self.listener, PollFlags::IN));
            }
            let busy = clients
                .iter()
                .any(|client| client.connection.has_request() && !client.connection.has_output());
            let wake = clients
                .iter()
                .filter_map(|client| client.connection.deadline())
                .chain(accepting)
                .min();
            let timeout = if busy { Some(now) } else { wake };
            let timeout = timeout.map(|time| time.saturating_duration_since(now));
            let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
            match poll(&mut polled, timeout.as_ref()) {
                Err(Errno::INTR) => continue,
                Err(error) => {
                    log::error!("the control socket is closed: {error}");
                    return;
                }
                Ok(_) => {}
            }
            let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
            // Before each request: those of a client may take long, and more of them may be
            // waiting.
            if is_ready(0) {
                return;
            }
            let is_new = accepts && is_ready(clients.len().saturating_add(1));
            let now = Instant::now();
            let mut position = 0_usize;
            clients.retain_mut(|client| {
                position = position.saturating_add(1);
                client.serve(is_ready(position), now, &mut handler)
            });
            accepting = accepting.filter(|time| now < *time);
            if is_new {
                match accept(&self.listener) {
                    Ok(client) => clients.extend(client),
                    Err(error) => {
                        log::debug!("accepting on the control socket: {error}");
                        accepting = now.checked_add(ACCEPT_PAUSE);
                    }
                }
            }
        }
    }
}

/// Takes the next connection; `None` if it is gone already.
fn accept(listener: &UnixListener) -> rustix::io::Result<Option<Client>> {
    match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok(stream) => Ok(Some(Client {
            stream: stream.into(),
            connection: Connection::default(),
            descriptors: Vec::new(),
        })),
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error),
    }
}

fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let mask = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    listener
}

/// A client that is connected.
#[derive(Debug)]
struct Client {
    /// Does not block.
    stream: UnixStream,
    connection: Connection,
    /// Descriptors that came for the next request.
    descriptors: Vec<OwnedFd>,
}

impl Client {
    /// The events to wait for.
    fn events(&self) -> PollFlags {
        if self.connection.has_output() {
            PollFlags::OUT
        } else if self.connection.wants_input() {
            PollFlags::IN
        } else {
            PollFlags::empty()
        }
    }

    /// Serves the connection for a step: reads once, answers once, writes what the client takes.
    /// Returns `false` if it ends.
    fn serve(&mut self, is_ready: bool, now: Instant, handler: &mut RequestHandler) -> bool {
        if is_ready && self.connection.wants_input() {
            let mut bytes = [0; 4096];
            match descriptors::receive(&self.stream, &mut bytes, &mut self.descriptors) {
                Ok(0) => return false,
                Ok(length) => self.connection.receive(bytes.get(..length).unwrap_or_default()),
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(_) => return false,
            }
        }
        let descriptors = &mut self.descriptors;
        self.connection.answer(now, |request| handler.answer(request, std::mem::take(descriptors)));
        self.connection.send(now, &self.stream).is_ok() && !self.connection.is_done()
    }
}

/// A control socket that is answered, until this is dropped.
#[derive(Debug)]
pub struct Serving {
    end: Arc<OwnedFd>,
    path: PathBuf,
    folder: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Err(error) = rustix::io::write(self.end.as_fd(), &1_u64.to_ne_bytes()) {
            log::error!("ending the control socket: {error}");
            return;
        }
        if let Some(thread) = self.thread.take() {
            // A panic was printed when it happened.
            let _ = thread.join();
        }
        let Some(name) = self.path.file_name() else { return };
        if let Err(error) = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            log::debug!("{}: {error}", self.path.display());
        }
    }
}
