//! The guest's console: bytes out, bytes in.
//!
//! Output has two sources. A guest that hands over buffers means them to appear: they go out at
//! once. A guest that hands over single bytes would cost a system call each: those wait for the end
//! of the line. A prompt has no end of line, so a partial line does not wait longer than
//! [`Console::GRACE`]: the machine's monitor finds out by [`Console::has_partial_line`], or by
//! polling [`Console::watch`], and calls [`Console::flush`] after that time.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use nerite_event::Event;
use nerite_saved::{RestoreError, refuse};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Takes console output, on the thread of the vCPU or device that writes, a piece at a time.
pub type Write = Box<dyn Fn(&[u8]) -> io::Result<()> + Send + Sync>;

/// Destination of console output.
pub enum Sink {
    /// To a file, pipe or terminal.
    Fd(OwnedFd),
    /// To a function. It holds the guest up while it runs; an error ends the machine.
    Call(Write),
    /// To standard output, whatever that is.
    Stdout,
    /// Nowhere.
    Null,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fd(fd) => f.debug_tuple("Fd").field(fd).finish(),
            Self::Call(_) => f.write_str("Call"),
            Self::Stdout => f.write_str("Stdout"),
            Self::Null => f.write_str("Null"),
        }
    }
}

/// Saved state of a [`Console`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleState {
    /// Output that waits for the end of its line.
    #[serde(with = "nerite_saved::bytes")]
    pub line: Vec<u8>,
}

/// The guest's console output.
#[derive(Debug)]
pub struct Console {
    sink: Sink,
    line: Mutex<Vec<u8>>,
    /// Readable while a partial line waits; created by the first watcher.
    event: OnceLock<OwnedFd>,
    /// `true` if a partial line was begun since the last flush, so that `event` is signalled once
    /// per grace period.
    armed: AtomicBool,
    stopping: AtomicBool,
    /// `true` once something has been written to the sink.
    has_output: AtomicBool,
    /// Signalled by the first write, if that is of interest.
    first_output: OnceLock<Event>,
}

impl Console {
    /// Maximum time that a partial line waits.
    pub const GRACE: Duration = Duration::from_millis(5);
    /// Maximum length of a line in bytes before it goes out without its end.
    const LINE_CAPACITY: usize = 4096;

    /// A console that writes to `sink`.
    pub const fn new(sink: Sink) -> Self {
        Self {
            sink,
            line: Mutex::new(Vec::new()),
            event: OnceLock::new(),
            armed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            has_output: AtomicBool::new(false),
            first_output: OnceLock::new(),
        }
    }

    /// Signals `event` when output is written to the sink for the first time. Before the guest
    /// runs; only the first event counts.
    pub fn on_first_output(&self, event: Event) {
        // There is one already otherwise.
        let _ = self.first_output.set(event);
    }

    /// Returns `true` if output has been written to the sink.
    pub fn has_output(&self) -> bool {
        self.has_output.load(Ordering::Acquire)
    }

    /// Writes `bytes`, after whatever waits, now.
    ///
    /// # Errors
    /// If the sink takes no more: a closed pipe, a full disk. `Interrupted` after
    /// [`Console::stop`].
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut line = self.lock();
        self.flush_line(&mut line)?;
        self.send(bytes)
    }

    /// Writes whatever waits and then `bytes`, at most 4096, if the sink takes them without making
    /// the writer wait. Returns whether it has; if not, try again when [`Console::sink`] takes
    /// more.
    ///
    /// # Errors
    /// As [`Console::write`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<bool> {
        let mut line = self.lock();
        if !line.is_empty() {
            if !self.takes_more()? {
                return Ok(false);
            }
            self.flush_line(&mut line)?;
        }
        Ok(self.takes_more()? && self.send(bytes).map(|()| true)?)
    }

    /// Writes one byte with its line: at the end of the line, or when the grace period is over.
    ///
    /// # Errors
    /// As [`Console::write`].
    pub fn put(&self, byte: u8) -> io::Result<()> {
        let mut line = self.lock();
        push(&mut line, byte);
        if byte == b'\n' || line.len() >= Self::LINE_CAPACITY {
            self.flush_line(&mut line)
        } else if line.len() == 1 && !self.armed.swap(true, Ordering::AcqRel) {
            self.event.get().map_or(Ok(()), signal)
        } else {
            Ok(())
        }
    }

    /// Appends a byte to the partial line and leaves it there, even if it ends the line, for the
    /// next caller of [`Console::flush`]. Never waits. Returns `false` if there is no room now; the
    /// byte is then not taken.
    pub fn hold(&self, byte: u8) -> bool {
        let mut line = match self.line.try_lock() {
            Ok(line) => line,
            Err(TryLockError::Poisoned(line)) => line.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let room = line.len() < Self::LINE_CAPACITY;
        if room {
            push(&mut line, byte);
        }
        room
    }

    /// Writes a partial line, if there is one and the sink takes it now.
    ///
    /// It never waits, neither for the sink nor for a vCPU that is waiting for the sink: its caller
    /// has a machine to attend to. Returns whether nothing waits any more; if something does, call
    /// it again when [`Console::sink`] takes more.
    ///
    /// # Errors
    /// As [`Console::write`].
    pub fn flush(&self) -> io::Result<bool> {
        let mut line = match self.line.try_lock() {
            Ok(line) => line,
            Err(TryLockError::Poisoned(line)) => line.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(false),
        };
        if !line.is_empty() && !self.takes_more()? {
            return Ok(false);
        }
        if self.armed.swap(false, Ordering::AcqRel)
            && let Some(event) = self.event.get()
        {
            // Takes the signal back; it does not block if there is none.
            match rustix::io::read(event, &mut [0_u8; 8]) {
                Ok(_) | Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.flush_line(&mut line).map(|()| true)
    }

    /// The partial line, which stays.
    pub fn save(&self) -> ConsoleState {
        ConsoleState { line: self.lock().clone() }
    }

    /// Takes a saved partial line, in place of one that waits.
    ///
    /// # Errors
    /// Fails if it is longer than a line gets.
    pub fn restore(&self, saved: &ConsoleState) -> Result<(), RestoreError> {
        refuse("console", "line", saved.line.len() > Self::LINE_CAPACITY)?;
        let mut line = self.lock();
        line.clone_from(&saved.line);
        if !line.is_empty() && !self.armed.swap(true, Ordering::AcqRel) {
            self.event.get().map_or(Ok(()), signal).map_err(RestoreError::failed("console"))?;
        }
        Ok(())
    }

    /// Descriptor of the sink, for waiting until it takes more. `None` if it always does.
    pub fn sink(&self) -> Option<BorrowedFd<'_>> {
        match &self.sink {
            Sink::Fd(fd) => Some(fd.as_fd()),
            Sink::Stdout => Some(rustix::stdio::stdout()),
            Sink::Call(_) | Sink::Null => None,
        }
    }

    /// Returns `true` if the sink takes a line without making the writer wait, or has an error to
    /// report.
    ///
    /// A pipe that is ready for output takes at least `PIPE_BUF` = 4096 bytes (pipe(7)), which is
    /// the longest line.
    fn takes_more(&self) -> io::Result<bool> {
        let Some(sink) = self.sink() else { return Ok(true) };
        match poll(
            &mut [PollFd::from_borrowed_fd(sink, PollFlags::OUT)],
            Some(&Timespec::default()),
        ) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns `true` if a partial line was begun since the last [`Console::flush`]. It may have
    /// been completed meanwhile.
    pub fn has_partial_line(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    /// Event that is readable from the first byte of a partial line until [`Console::flush`]. Only
    /// the first call takes the lock.
    ///
    /// # Errors
    /// If the host has no file descriptor left.
    pub fn watch(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(event) = self.event.get() {
            return Ok(event.as_fd());
        }
        // Under the lock, so that no line begins meanwhile.
        let _line = self.lock();
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        if self.has_partial_line() {
            signal(&event)?;
        }
        // Another thread may have been first.
        Ok(self.event.get_or_init(|| event).as_fd())
    }

    /// From now on a write that a signal interrupts is given up instead of tried again.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        // The buffer is bytes: a panic elsewhere cannot have left it in a state that is worse than
        // a lost byte.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush_line(&self, line: &mut Vec<u8>) -> io::Result<()> {
        let sent = self.send(line);
        line.clear();
        sent
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_out(bytes)?;
        if !bytes.is_empty()
            && !self.has_output()
            && !self.has_output.swap(true, Ordering::AcqRel)
            && let Some(event) = self.first_output.get()
        {
            event.signal();
        }
        Ok(())
    }

    fn write_out(&self, mut bytes: &[u8]) -> io::Result<()> {
        if let Sink::Call(write) = &self.sink {
            return if bytes.is_empty() { Ok(()) } else { write(bytes) };
        }
        let Some(fd) = self.sink() else { return Ok(()) };
        while !bytes.is_empty() {
            match rustix::io::write(fd, bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(Errno::INTR) if !self.stopping.load(Ordering::Acquire) => {}
                // A sink that another process made non-blocking: wait until it takes more.
                Err(Errno::AGAIN) => wait_writable(fd, &self.stopping)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn signal(event: &OwnedFd) -> io::Result<()> {
    rustix::io::write(event, &1_u64.to_ne_bytes()).map(drop).map_err(io::Error::from)
}

/// Makes room for the longest line at the first byte: guests that hand over buffers never need it.
fn push(line: &mut Vec<u8>, byte: u8) {
    if line.capacity() == 0 {
        line.reserve_exact(Console::LINE_CAPACITY);
    }
    line.push(byte);
}

fn wait_writable(fd: BorrowedFd<'_>, stopping: &AtomicBool) -> io::Result<()> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None) {
        Err(Errno::INTR) if !stopping.load(Ordering::Acquire) => Ok(()),
        other => other.map(drop).map_err(io::Error::from),
    }
}

/// The guest's console input.
#[derive(Debug)]
pub struct Input {
    source: Source,
}

/// Source of console input.
#[derive(Debug)]
enum Source {
    Fd(OwnedFd),
    Stdin,
    Nothing,
}

impl Input {
    /// Input from a file, pipe or terminal, or none: at its end from the start.
    pub fn new(source: Option<OwnedFd>) -> Self {
        Self { source: source.map_or(Source::Nothing, Source::Fd) }
    }

    /// Input from standard input, whatever that is.
    pub const fn stdin() -> Self {
        Self { source: Source::Stdin }
    }

    /// Reads what is there, waiting for at least one byte. Returns 0 at the end of the input.
    ///
    /// Waiting ends when `stop` becomes readable. No lock is held meanwhile.
    ///
    /// # Errors
    /// If the source cannot be read. `Interrupted` if `stop` is readable, or a signal came.
    pub fn read(&self, buffer: &mut [u8], stop: BorrowedFd<'_>) -> io::Result<usize> {
        let source = match &self.source {
            Source::Fd(source) => source.as_fd(),
            Source::Stdin => rustix::stdio::stdin(),
            Source::Nothing => return Ok(0),
        };
        let mut polled = [
            PollFd::from_borrowed_fd(source, PollFlags::IN),
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
        ];
        poll(&mut polled, None)?;
        let [_, stopped] = &polled;
        if !stopped.revents().is_empty() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        // If another vCPU takes the bytes first, this blocks until there are more, or a signal
        // comes.
        Ok(rustix::io::read(source, buffer)?)
    }
}

#[cfg(test)]
#[path = "console_test.rs"]
mod tests;
