//! What is typed, on its way to the guest's serial port or virtio console.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nerite_devices::Escape;
use nerite_devices::pc::Serial;
use nerite_virtio_console::Console as VirtioConsole;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::isatty;

/// How much is read at once.
const CHUNK: usize = 256;
/// How long a guest that takes no input, and may do so without telling, is left alone before it is tried again.
const TRY_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// What takes a guest's input.
pub(crate) trait Line: Send + Sync {
    /// Hands input to the guest and says how much of it was taken.
    fn enqueue(&self, bytes: &[u8]) -> usize;
    /// Readable when there is room again.
    fn room(&self) -> BorrowedFd<'_>;
    /// Makes [`Self::room`] unreadable until there is room again.
    fn acknowledge(&self);
}

impl Line for Serial {
    fn enqueue(&self, bytes: &[u8]) -> usize {
        self.enqueue(bytes)
    }

    fn room(&self) -> BorrowedFd<'_> {
        self.room()
    }

    fn acknowledge(&self) {
        self.acknowledge();
    }
}

impl Line for VirtioConsole {
    fn enqueue(&self, bytes: &[u8]) -> usize {
        self.enqueue(bytes)
    }

    fn room(&self) -> BorrowedFd<'_> {
        self.room()
    }

    fn acknowledge(&self) {
        self.acknowledge();
    }
}

/// Where the guest's input comes from.
#[derive(Debug)]
pub(crate) struct Keyboard {
    source: OwnedFd,
    /// The escape key counts on a terminal only: input from a file is the guest's to the last byte.
    escape: Option<Escape>,
}

/// Why there is no more input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The source is at its end.
    Source,
    /// The machine is being stopped.
    Stopped,
    /// The escape key was typed.
    Escape,
}

impl Keyboard {
    pub(crate) fn new(source: OwnedFd) -> Self {
        let escape = isatty(&source).then(Escape::default);
        Self { source, escape }
    }

    /// Whether the input is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.escape.is_some()
    }

    /// Hands on what is typed until there is no more, or `stop` becomes readable.
    pub(crate) fn run(mut self, line: &dyn Line, stop: &OwnedFd) -> io::Result<Ended> {
        let mut waiting: Vec<u8> = Vec::new();
        loop {
            // Room that comes about after this makes the event readable again.
            line.acknowledge();
            let taken = line.enqueue(&waiting);
            waiting.drain(..taken.min(waiting.len()));
            let (event, timeout) = match waiting.is_empty() {
                true => (self.source.as_fd(), None),
                false => (line.room(), Some(&TRY_AGAIN)),
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
