#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod connection;
#[cfg(any(test, feature = "exercise"))]
pub mod exercise;
mod guest;
mod monitor;
mod registers;
mod session;
mod target;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nerite_private_socket::BindError;
use nerite_service::DebugTarget;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

// Crates whose types are in this one's interface.
pub use nerite_arch;
pub use nerite_private_socket;
pub use nerite_service;

pub use connection::{Address, AddressError, DEFAULT_PORT};
pub use registers::{State, X86_64};

use connection::Listener;
use guest::Guest;
use session::Ended;

/// Error of starting a GDB server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The TCP address cannot be listened on.
    #[error("cannot listen for a debugger on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// The Unix socket cannot be made.
    #[error(transparent)]
    Socket(#[from] BindError),
    /// The thread cannot be started.
    #[error("cannot start the thread of the GDB server")]
    Thread(#[source] io::Error),
    /// The machine was not made for debugging.
    #[error("this machine cannot be debugged: its configuration does not ask for it")]
    NotDebuggable,
}

/// A GDB server that is not started yet.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
}

impl Server {
    /// Listens for a debugger.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub fn bind(address: &Address) -> Result<Self, ServerError> {
        Ok(Self { listener: Listener::bind(address)? })
    }

    /// Address at which it listens, as text.
    pub fn address(&self) -> String {
        self.listener.address()
    }

    /// Directory of the socket, from which it is removed in the end; `None` for TCP.
    pub fn folder(&self) -> Option<BorrowedFd<'_>> {
        self.listener.folder()
    }

    /// Starts to serve a machine. `is_held` is `true` if each of its vCPUs has a hold for the
    /// debugger, which releases it.
    ///
    /// # Errors
    /// If the machine cannot be debugged, or the host has no thread or descriptor left.
    pub fn start(
        self,
        machine: Box<dyn DebugTarget>,
        is_held: bool,
    ) -> Result<Serving, ServerError> {
        if !machine.is_debuggable() {
            return Err(ServerError::NotDebuggable);
        }
        let mut guest = Guest::new(machine, is_held);
        let end =
            eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| ServerError::Thread(error.into()))?;
        let end = Arc::new(end);
        let thread = thread::Builder::new().name("gdb".to_owned()).spawn({
            let end = end.clone();
            move || match guest.machine.confine_thread() {
                Ok(()) => self.serve(&mut guest, &end),
                Err(error) => log::error!("the GDB server ends: {error}"),
            }
        });
        Ok(Serving { end, thread: Some(thread.map_err(ServerError::Thread)?) })
    }

    fn serve(&self, guest: &mut Guest, end: &Arc<OwnedFd>) {
        loop {
            let mut polled =
                [PollFd::new(&**end, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
            match poll(&mut polled, None) {
                Err(Errno::INTR) => continue,
                Err(error) => {
                    log::error!("the GDB server ends: {error}");
                    return;
                }
                Ok(_) => {}
            }
            let [ended, _] = &polled;
            if !ended.revents().is_empty() {
                return;
            }
            match self.listener.accept(end.clone()) {
                Ok(connection) => {
                    if session::serve(guest, connection) != Ended::Detached {
                        return;
                    }
                }
                Err(error) => log::warn!("a debugger could not connect: {error}"),
            }
        }
    }
}

/// A running GDB server, until this is dropped.
#[derive(Debug)]
pub struct Serving {
    end: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        session::signal(&self.end);
        if let Some(thread) = self.thread.take() {
            // A panic was printed when it happened.
            let _ = thread.join();
        }
    }
}
