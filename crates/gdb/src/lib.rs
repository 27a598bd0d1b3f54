//! A GDB server for machines: **the debugger sees vCPUs as threads, and the run loop does not know
//! that there is one.**
//!
//! [`Server`] listens; its thread takes one debugger at a time. It stops, looks and steps through
//! the machine's [`Handle`], as the control socket does. What to stop at is kept by a layer around
//! each vCPU ([`nerite_vcpu::Debugged`]), by the host's debug registers where a probe found that
//! they work, and by single steps elsewhere.
//!
//! ```no_run
//! use nerite_gdb::{Address, Server};
//! use nerite_machine::config::{Config, Debug, Observe};
//! use nerite_machine::Machine;
//!
//! let server = Server::bind(&Address::default())?;
//! let observe = Observe { debug: Some(Debug::Held), ..Observe::default() };
//! let config = Config { image: "hello".into(), observe, ..Config::default() };
//! let running = Machine::new(&config)?.start()?;
//! let serving = server.start(running.handle(), Debug::Held)?;
//! running.wait(None)?;
//! # drop(serving);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod connection;
#[cfg(any(test, feature = "exercise"))]
pub mod exercise;
mod guest;
mod machine;
mod monitor;
mod registers;
mod session;
mod target;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nerite_machine::config::Debug;
use nerite_machine::{Handle, ThreadKind};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

pub use connection::{Address, AddressError, DEFAULT_PORT};
pub use registers::{State, X86_64};

use connection::Listener;
use guest::Guest;
use machine::Real;
use session::Ended;

/// Why there is no GDB server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen for a debugger on {address}: {source}")]
    Bind {
        /// The address.
        address: Address,
        /// Why not.
        source: io::Error,
    },
    /// The thread cannot be started.
    #[error("cannot start the thread of the GDB server: {0}")]
    Thread(#[source] io::Error),
    /// The machine was not made for it.
    #[error("this machine cannot be debugged: its configuration does not say that it should be")]
    NotDebuggable,
}

/// A GDB server that nobody answers yet.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
}

impl Server {
    /// Listens for a debugger. To be called while the process has one thread: the file mode
    /// creation mask is changed for a moment.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub fn bind(address: &Address) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Bind { address: address.clone(), source };
        Ok(Self { listener: Listener::bind(address).map_err(failed)? })
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        self.listener.address()
    }

    /// The folder of the socket, from which it is removed in the end; none for TCP.
    pub fn folder(&self) -> Option<BorrowedFd<'_>> {
        self.listener.folder()
    }

    /// Starts to serve this machine, which began as `start` says.
    ///
    /// # Errors
    /// If the machine cannot be debugged, or the host has no thread or descriptor left.
    pub fn start(self, handle: Handle, start: Debug) -> Result<Serving, ServerError> {
        let events = handle.debug_events().ok_or(ServerError::NotDebuggable)?.clone();
        let machine = Real { handle: handle.clone(), events };
        let mut guest = Guest::new(Box::new(machine), start == Debug::Held);
        let end = eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| ServerError::Thread(error.into()))?;
        let end = Arc::new(end);
        let thread = thread::Builder::new().name("gdb".to_owned()).spawn({
            let end = end.clone();
            move || match handle.confine_thread(ThreadKind::Control) {
                Ok(()) => self.serve(&mut guest, &end),
                Err(error) => log::error!("the GDB server ends: {error}"),
            }
        });
        Ok(Serving { end, thread: Some(thread.map_err(ServerError::Thread)?) })
    }

    fn serve(&self, guest: &mut Guest, end: &Arc<OwnedFd>) {
        loop {
            let mut polled = [PollFd::new(&**end, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
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

/// A GDB server that is being answered, until this is dropped.
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

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
