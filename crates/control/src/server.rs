//! The side of the machine: a socket, and one thread for all who connect to it.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nerite_private_socket::{BindError, PrivateSocket, SocketName};
use nerite_service::ControlTarget;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
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
    /// The socket cannot be made.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The thread cannot be started.
    #[error("cannot start the thread of the control socket")]
    Thread(#[source] io::Error),
}

/// A control socket that is not answered yet.
#[derive(Debug)]
pub struct Server {
    socket: PrivateSocket,
}

impl Server {
    /// Makes the socket, accessible to this user only.
    ///
    /// A socket without a listener is replaced.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn bind(path: &Path) -> Result<Self, ServerError> {
        Ok(Self { socket: PrivateSocket::bind(path)? })
    }

    /// The socket, which does not block, for a server of another kind.
    #[must_use]
    pub fn listener(&self) -> &UnixListener {
        self.socket.listener()
    }

    /// Directory of the socket, from which it is removed in the end.
    #[must_use]
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.socket.directory()
    }

    /// Starts to answer for this machine.
    ///
    /// # Errors
    /// If the host has no thread or descriptor left.
    pub fn start(self, machine: Box<dyn ControlTarget>) -> Result<Serving, ServerError> {
        let end =
            eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| ServerError::Thread(error.into()))?;
        let end = Arc::new(end);
        let (listener, name) = self.socket.into_parts();
        let thread = thread::Builder::new().name("control".to_owned()).spawn({
            let end = end.clone();
            move || match machine.confine_thread() {
                Ok(()) => serve(&listener, RequestHandler::new(machine), &end),
                Err(error) => log::error!("the control socket is closed: {error}"),
            }
        });
        Ok(Serving { end, _name: name, thread: Some(thread.map_err(ServerError::Thread)?) })
    }
}

/// Answers all clients until `end` is readable.
fn serve(listener: &UnixListener, mut handler: RequestHandler, end: &OwnedFd) {
    let mut clients: Vec<Client> = Vec::new();
    // When connections are accepted again, after the host had no descriptor left.
    let mut accepting: Option<Instant> = None;
    loop {
        let now = Instant::now();
        let accepts = clients.len() < MAX_CLIENTS && accepting.is_none_or(|time| now >= time);
        let mut polled = vec![PollFd::new(end, PollFlags::IN)];
        polled.extend(clients.iter().map(|client| PollFd::new(&client.stream, client.events())));
        if accepts {
            polled.push(PollFd::new(listener, PollFlags::IN));
        }
        let busy = clients
            .iter()
            .any(|client| client.connection.has_request() && !client.connection.has_output());
        let wake =
            clients.iter().filter_map(|client| client.connection.deadline()).chain(accepting).min();
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
            match accept(listener) {
                Ok(client) => clients.extend(client),
                Err(error) => {
                    log::debug!("accepting on the control socket: {error}");
                    accepting = now.checked_add(ACCEPT_PAUSE);
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
    thread: Option<JoinHandle<()>>,
    /// Removed once the thread has ended.
    _name: SocketName,
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
    }
}
