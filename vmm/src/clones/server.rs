//! The server: one thread that hands out shells.

mod client;
mod pool;

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::clone_wire::{ClonesError, Command};
use crate::resolve::Resolved;
use crate::signals::Signals;
use crate::{exit_code, output};
use client::{Client, State};
use pool::{Pool, Stage};

/// Maximum number of clients at a time, running clones and waiting requests together, beyond those
/// that can run; more are refused.
const MAX_WAITING: usize = 1024;
/// Time until shells that were sent a signal are killed.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time without new connections after one could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Limits of a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Number of shells that are kept ready.
    pub(super) pool: usize,
    /// Number of clones that run at a time.
    pub(super) most: usize,
    /// Time that a clone may run.
    pub(super) time: Option<Duration>,
}

/// A server of clones.
pub(super) struct Server<'a> {
    listener: &'a UnixListener,
    signals: &'a Signals,
    limits: Limits,
    pool: Pool<'a>,
    clients: Vec<Client>,
    /// Number of the next client.
    next: u64,
    /// When connections are accepted again, after the host had no descriptor left.
    accepts_at: Option<Instant>,
    is_stopping: bool,
}

/// Descriptors that are ready, in the order in which they were polled.
struct Ready {
    listener: bool,
    /// For each shell: its channel, its end.
    shells: Vec<[bool; 2]>,
    clients: Vec<bool>,
}

impl<'a> Server<'a> {
    pub(super) fn new(
        resolved: &'a Resolved,
        listener: &'a UnixListener,
        signals: &'a Signals,
        limits: Limits,
    ) -> Self {
        let pool = Pool::new(resolved, limits);
        let clients = Vec::new();
        Self {
            listener,
            signals,
            limits,
            pool,
            clients,
            next: 0,
            accepts_at: None,
            is_stopping: false,
        }
    }

    /// Serves until a signal or a client ends it, or no shell can be made. Gives the exit code.
    pub(super) fn serve(mut self) -> Result<u8, ClonesError> {
        let done = self.run();
        self.end_all();
        done
    }

    fn run(&mut self) -> Result<u8, ClonesError> {
        loop {
            let waiting = self.clients.iter().filter(|client| client.is_waiting()).count();
            self.pool.refill(waiting)?;
            let Some(ready) = self.wait()? else { continue };
            if let Some(signal) = self.signals.received() {
                return Ok(exit_code::from_signal(signal));
            }
            if let Some(code) = self.look_after_shells(&ready.shells)? {
                return Ok(code);
            }
            self.look_after_clients(&ready.clients);
            if ready.listener {
                self.accept();
            }
            self.hand_out();
            if self.is_stopping {
                return Ok(exit_code::from_signal(libc::SIGTERM));
            }
        }
    }

    /// Waits until something is to be done. `None` if a signal came in between.
    fn wait(&mut self) -> Result<Option<Ready>, ClonesError> {
        const WHAT: &str = "waiting for clones and clients";
        let now = Instant::now();
        let accepts = self.accepts_at.is_none_or(|time| now >= time);
        let stop = self.signals.fd().map_err(ClonesError::host(WHAT))?;
        let mut polled = vec![PollFd::from_borrowed_fd(stop, PollFlags::IN)];
        let listens = if accepts { PollFlags::IN } else { PollFlags::empty() };
        polled.push(PollFd::new(self.listener, listens));
        for shell in self.pool.shells() {
            let wanted =
                if shell.stage == Stage::Starting { PollFlags::IN } else { PollFlags::empty() };
            polled.push(PollFd::new(&shell.channel, wanted));
            polled.push(PollFd::from_borrowed_fd(shell.child.ended(), PollFlags::IN));
        }
        polled.extend(self.clients.iter().map(|it| PollFd::new(&it.stream, PollFlags::IN)));
        let wake = self.pool.next_time().into_iter().chain(self.accepts_at.filter(|_| !accepts));
        let timeout = wake.min().map(|time| time.saturating_duration_since(now));
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        match poll(&mut polled, timeout.as_ref()) {
            Err(Errno::INTR) => return Ok(None),
            other => other.map_err(ClonesError::host(WHAT))?,
        };
        let mut ready = polled.iter().map(|fd| !fd.revents().is_empty()).skip(1);
        let listener = ready.next().unwrap_or(false);
        let rest: Vec<bool> = ready.collect();
        let (shells, clients) = rest.split_at(self.pool.shells().len().saturating_mul(2));
        Ok(Some(Ready {
            listener,
            shells: shells.as_chunks::<2>().0.to_vec(),
            clients: clients.to_vec(),
        }))
    }

    /// Looks which shells are ready and which have ended. Gives an exit code if none can be made.
    fn look_after_shells(&mut self, ready: &[[bool; 2]]) -> Result<Option<u8>, ClonesError> {
        self.pool.stop_late();
        for (position, [_, ended]) in ready.iter().enumerate().rev() {
            if *ended {
                let end = self.pool.remove(position);
                if let Some(code) = end.failed_first {
                    return Ok(Some(code));
                }
                let answer = match end.message {
                    Some(message) => json!({ "code": end.code, "message": message }),
                    None => json!({ "code": end.code }),
                };
                self.finish(end.pid, &answer);
            }
        }
        self.pool.take_ready();
        if self.pool.cannot_start() {
            for client in &mut self.clients {
                if let State::Waiting(_) = client.state {
                    client.fail("no clone can be started; its messages are those of the server");
                }
            }
            self.clients.retain(|client| !client.is_done());
        }
        Ok(None)
    }

    /// Tells the client of a clone that it has ended.
    fn finish(&mut self, pid: u32, answer: &Value) {
        for client in &mut self.clients {
            if let State::Running(own) = client.state
                && own == pid
            {
                client.answer(answer);
                client.state = State::Done;
            }
        }
        self.clients.retain(|client| !client.is_done());
    }

    fn look_after_clients(&mut self, ready: &[bool]) {
        let ready: Vec<bool> = ready.to_vec();
        let mut is_ready = ready.into_iter();
        let mut status = false;
        for client in &mut self.clients {
            if !is_ready.next().unwrap_or(false) {
                continue;
            }
            let before = client.state.running();
            match client.receive() {
                Some(Command::Stop) => {
                    client.answer(&json!({}));
                    client.state = State::Done;
                    self.is_stopping = true;
                }
                Some(Command::Status) => status = true,
                _ => {}
            }
            if let (true, Some(pid)) = (client.is_done(), before) {
                self.pool.signal(pid, Signal::TERM);
            }
        }
        if status {
            let answer = self.status();
            for client in &mut self.clients {
                if let State::Asking = client.state {
                    client.answer(&answer);
                    client.state = State::Reading;
                }
            }
        }
        self.clients.retain(|client| !client.is_done());
    }

    fn status(&self) -> Value {
        let count = |stage| self.pool.shells().iter().filter(|it| it.stage == stage).count();
        let running = self.pool.shells().iter().filter(|it| it.stage == Stage::Running);
        let waiting = self.clients.iter().filter(|it| matches!(it.state, State::Waiting(_)));
        json!({
            "ready": count(Stage::Ready),
            "starting": count(Stage::Starting),
            "running": running.map(|it| it.child.number()).collect::<Vec<_>>(),
            "waiting": waiting.count(),
        })
    }

    fn accept(&mut self) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match accept_with(self.listener, flags) {
            Ok(stream) => {
                let mut client = Client::new(self.next, stream.into());
                self.next = self.next.wrapping_add(1);
                if self.clients.len() >= self.limits.most.saturating_add(MAX_WAITING) {
                    client.fail("too many requests wait; try again later");
                } else {
                    self.clients.push(client);
                }
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => {
                log::debug!("accepting on the socket of clones: {error}");
                self.accepts_at = Instant::now().checked_add(ACCEPT_PAUSE);
            }
        }
    }

    /// Gives ready shells to the clients that have waited longest.
    fn hand_out(&mut self) {
        while let Some(position) = self.clients.iter().position(Client::is_waiting) {
            let Some(client) = self.clients.get_mut(position) else { return };
            let State::Waiting(words) = &client.state else { return };
            let Some((pid, files)) = self.pool.claim(words) else { return };
            if client.answer_with(&json!({ "pid": pid }), &files) {
                client.state = State::Running(pid);
            } else {
                self.pool.signal(pid, Signal::TERM);
                self.clients.remove(position);
            }
        }
    }

    /// Ends all shells, and tells clients how.
    fn end_all(&mut self) {
        for shell in self.pool.shells() {
            shell.child.signal(Signal::TERM);
        }
        let deadline = Instant::now().checked_add(PATIENCE);
        while !self.pool.shells().is_empty() {
            let left = deadline.map(|it| it.saturating_duration_since(Instant::now()));
            let ended = match wait_for_any(self.pool.ends(), left.unwrap_or_default()) {
                Ok(Some(position)) => position,
                Ok(None) | Err(_) => {
                    output::say("vmm: some clones do not end, and are killed");
                    self.pool.shells().iter().for_each(|it| it.child.signal(Signal::KILL));
                    0
                }
            };
            let end = self.pool.remove(ended);
            self.finish(end.pid, &json!({ "code": end.code }));
        }
    }
}

/// Waits until one of these is readable. `None` if none is in time.
fn wait_for_any<'b>(
    descriptors: impl Iterator<Item = BorrowedFd<'b>>,
    time: Duration,
) -> io::Result<Option<usize>> {
    let mut polled: Vec<_> =
        descriptors.map(|it| PollFd::from_borrowed_fd(it, PollFlags::IN)).collect();
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    loop {
        match poll(&mut polled, Some(&time)) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(polled.iter().position(|it| !it.revents().is_empty())),
        }
    }
}
