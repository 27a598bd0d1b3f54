//! Forwards terminal input to the guest's serial port or virtio console.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nerite_devices::Escape;
use nerite_platform::{InputLine, StopToken};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::isatty;

/// Bytes read at once.
const CHUNK: usize = 256;
/// Pause before input is offered again to a guest that takes none and gives no signal when it does.
const TRY_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Source and destination of the guest's input.
pub(crate) struct Keyboard {
    source: OwnedFd,
    line: Arc<dyn InputLine>,
    /// The escape key counts on a terminal only: input from a file is the guest's to the last byte.
    escape: Option<Escape>,
}

/// Reason why there is no more input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The source is at its end.
    Source,
    /// The machine is being stopped.
    Stopped,
    /// The escape key was typed.
    Escape,
}

impl fmt::Debug for Keyboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyboard").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Keyboard {
    /// Input from `source`, or else from standard input, on its way to `line`; `None` if it is
    /// closed.
    pub(crate) fn new(source: Option<&OwnedFd>, line: Arc<dyn InputLine>) -> Option<Self> {
        let source = source.map_or(rustix::stdio::stdin(), |source| source.as_fd());
        let source = rustix::io::fcntl_dupfd_cloexec(source, 3).ok()?;
        let escape = isatty(&source).then(Escape::default);
        Some(Self { source, line, escape })
    }

    /// `true` if the input is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.escape.is_some()
    }

    /// Hands on what is typed until there is no more, or `stop` becomes readable.
    pub(crate) fn run(mut self, stop: &StopToken) -> io::Result<Ended> {
        let mut waiting: Vec<u8> = Vec::new();
        loop {
            // Room that comes about after this makes the event readable again.
            self.line.acknowledge();
            let taken = self.line.enqueue(&waiting);
            waiting.drain(..taken.min(waiting.len()));
            let (event, timeout) = match waiting.is_empty() {
                true => (self.source.as_fd(), None),
                false => (self.line.room(), Some(&TRY_AGAIN)),
            };
            let mut polled = [
                PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(event, PollFlags::IN),
            ];
            match poll(&mut polled, timeout) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            let [stopped, ready] = &polled;
            if !stopped.revents().is_empty() {
                return Ok(Ended::Stopped);
            }
            if !waiting.is_empty() || ready.revents().is_empty() {
                continue;
            }
            let mut buffer = [0; CHUNK];
            let length = match rustix::io::read(&self.source, &mut buffer) {
                Ok(0) => return Ok(Ended::Source),
                Ok(length) => length,
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Err(error) => return Err(error.into()),
            };
            let typed = buffer.get(..length).unwrap_or_default();
            match &mut self.escape {
                None => waiting.extend_from_slice(typed),
                Some(escape) => match escape.filter(typed) {
                    Some(meant) => waiting = meant,
                    None => return Ok(Ended::Escape),
                },
            }
        }
    }
}
