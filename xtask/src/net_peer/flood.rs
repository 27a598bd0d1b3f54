//! A stream to the guest that does not end.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::set_socket_linger;

use super::{Link, PATIENCE};

/// Port of the guest that takes everything.
pub(super) const DISCARD: u16 = 9;
/// Bytes of a stream repeat after this many.
pub(super) const PATTERN: usize = 251;
/// Bytes that the guest has taken when a flood is in full flow: as much as its window.
const FLOW: u64 = 256 << 10;

/// The pattern of streams, from its beginning.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % PATTERN).unwrap_or_default()).collect()
}

/// Sends to the guest until it is dropped. The connection ends with a reset then, so that the guest
/// does not have to take what is on its way before it can serve another one.
pub(super) struct Flood {
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Begins to send.
    pub(super) fn begin(link: Link) -> Result<Self> {
        let stream = link.connect(DISCARD)?;
        set_socket_linger(&stream, Some(Duration::ZERO))?;
        let mut sender = stream.try_clone()?;
        let whole = pattern(PATTERN * 256);
        let thread = thread::spawn(move || while sender.write_all(&whole).is_ok() {});
        Ok(Self { stream, thread: Some(thread) })
    }

    /// Begins to send, and returns once it is in full flow; `taken` gives the bytes that the guest
    /// has taken. In user mode a connection that the guest refuses is accepted first, so that it is
    /// tried again.
    pub(super) fn in_full_flow(link: Link, taken: impl Fn() -> Result<u64>) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let goal = taken()?.saturating_add(FLOW);
        loop {
            let flood = Self::begin(link)?;
            while !flood.has_ended() {
                if taken()? >= goal {
                    return Ok(flood);
                }
                ensure!(Instant::now() < deadline, "the guest takes no flood");
                thread::sleep(Duration::from_millis(1));
            }
            ensure!(Instant::now() < deadline, "the guest ends each flood");
        }
    }

    /// Returns `true` if the other side has ended the connection.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the connection.
    ///
    /// # Errors
    /// If the other side has done so before.
    pub(super) fn end(self) -> Result<()> {
        self.stream.shutdown(Shutdown::Both).context("the flood has ended early")
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // It fails if the other side has ended it, which is no matter here.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A panic was printed when it happened.
            let _ = thread.join();
        }
    }
}
