//! Standard error that never blocks: what it does not take is dropped and counted.
//!
//! Its reader may be gone, stopped or slow, and a guest can cause lines: a thread that waited for
//! the reader could be neither kicked nor ended. The descriptor is shared with the parent process,
//! so its own mode is left alone; pipes and terminals are opened once more, without blocking, and
//! sockets and the rest are asked before each write.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::stdio::stderr;

/// Bytes that a pipe takes whole or not at all (Linux `PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;
/// Bytes of log lines that one run writes, unless more of them are asked for.
const LOG_LIMIT: u64 = 1 << 20;
/// Time without any progress after which the reader of a report counts as gone.
const PATIENCE: Duration = Duration::from_millis(300);

static STATE: Mutex<State> =
    Mutex::new(State { own: None, room: LOG_LIMIT, dropped: 0, is_cut: false });

struct State {
    /// Another open file description of the same pipe or terminal, which does not block.
    own: Option<File>,
    /// Bytes of log lines that are still written.
    room: u64,
    /// Lines dropped since the last one that said so.
    dropped: u64,
    /// `true` if the last line was written in part.
    is_cut: bool,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prepares standard error, while files can still be opened by path. Without it the descriptor is
/// asked before each write, which another writer to the same pipe can make wrong.
pub fn open() {
    let kind = fstat(stderr()).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if !matches!(kind, Ok(FileType::Fifo | FileType::CharacterDevice)) {
        return;
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    // It fails without /proc, and if the pipe belongs to another user.
    state().own = OpenOptions::new().write(true).custom_flags(flags).open("/proc/self/fd/2").ok();
}

/// Number of the descriptor that [`open`] made, if it did.
#[must_use]
pub fn descriptor() -> Option<RawFd> {
    state().own.as_ref().map(AsRawFd::as_raw_fd)
}

/// Lifts the limit to the bytes of a run's log.
pub fn lift_log_limit() {
    state().room = u64::MAX;
}

/// Writes a line of the log at once, or drops it.
pub fn log(line: &[u8]) {
    let mut state = state();
    let Some(room) = state.room.checked_sub(line.len() as u64) else {
        state.dropped = state.dropped.saturating_add(1);
        return;
    };
    if state.write(line, Duration::ZERO) {
        state.room = room;
    }
}

/// Writes a text that ends the run or was asked for, and waits a moment for a reader that is slow.
pub fn say(text: &[u8]) {
    state().write(text, PATIENCE);
}

/// Says how many lines were dropped, if any were. For the end of a program.
pub fn finish() {
    let mut state = state();
    if state.dropped > 0 {
        state.write(&[], PATIENCE);
    }
}

impl State {
    /// Writes a text after what there is to say about earlier ones. Returns `false` if it was
    /// dropped.
    fn write(&mut self, text: &[u8], patience: Duration) -> bool {
        let mut whole = Vec::new();
        if self.is_cut {
            whole.push(b'\n');
        }
        if self.dropped > 0 {
            let (lines, are) = if self.dropped == 1 { ("line", "is") } else { ("lines", "are") };
            // Writing to memory does not fail.
            let _ = writeln!(
                whole,
                "vmm: warning: {} {lines} of the log {are} left out here",
                self.dropped
            );
        }
        whole.extend_from_slice(text);
        let mut rest = whole.as_slice();
        let mut last = Instant::now();
        while !rest.is_empty() {
            match self.write_some(rest) {
                Ok(written) if written > 0 => {
                    rest = rest.get(written..).unwrap_or_default();
                    last = Instant::now();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if last.elapsed() < patience => {
                    let left = patience.saturating_sub(last.elapsed());
                    wait(Timespec::try_from(left).unwrap_or_default());
                }
                // Full, or closed.
                Ok(_) | Err(_) => {
                    self.is_cut |= rest.len() < whole.len();
                    self.dropped = self.dropped.saturating_add(1);
                    return false;
                }
            }
        }
        (self.is_cut, self.dropped) = (false, 0);
        true
    }

    /// Writes as much as there is room for, without blocking.
    fn write_some(&self, text: &[u8]) -> rustix::io::Result<usize> {
        let piece = text.get(..PIECE).unwrap_or(text);
        match &self.own {
            Some(own) => rustix::io::write(own, piece),
            None if wait(Timespec::default()) => rustix::io::write(stderr(), piece),
            None => Err(Errno::AGAIN),
        }
    }
}

/// Waits until standard error takes something, or for this time. Returns `true` if it does, or if
/// an error can be had from it. Safe in a signal handler: one system call and no lock.
pub(crate) fn wait(time: Timespec) -> bool {
    poll(&mut [PollFd::from_borrowed_fd(stderr(), PollFlags::OUT)], Some(&time))
        .is_ok_and(|ready| ready > 0)
}

/// A [`io::Write`] for the log: each write is a line.
#[derive(Debug)]
pub struct Lines;

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        log(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
