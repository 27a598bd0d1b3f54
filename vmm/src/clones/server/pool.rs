//! Shells: those that start, those that are ready, and those whose guest runs.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::Signal;

use super::Limits;
use crate::clone_wire::{self as wire, ClonesError, Words};
use crate::clones::fork::{self, Child};
use crate::clones::shell::{self, READY};
use crate::resolve::Resolved;
use crate::{exit_code, signals, stderr};

/// Time between attempts when shells do not become ready.
const PAUSE: Duration = Duration::from_secs(1);
/// Number of shells in a row that do not become ready, after which requests are refused.
const MOST_FAILURES: u32 = 3;

/// Progress of a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It restores the snapshot.
    Starting,
    /// It waits for a client.
    Ready,
    /// Its guest runs.
    Running,
}

/// A process with a machine for one guest.
pub(super) struct Shell {
    pub(super) child: Child,
    pub(super) channel: UnixStream,
    pub(super) stage: Stage,
    /// Reading ends of its standard output and error, until a client has them.
    files: Option<[OwnedFd; 2]>,
    /// End of the time that its guest has.
    deadline: Option<Instant>,
    /// `true` if that has passed.
    is_late: bool,
}

/// End of a shell.
pub(super) struct End {
    pub(super) pid: u32,
    pub(super) code: u8,
    /// Message for its client.
    pub(super) message: Option<&'static str>,
    /// The exit code, if it was the first and never became ready: none will.
    pub(super) failed_first: Option<u8>,
}

/// All shells.
pub(super) struct Pool<'a> {
    resolved: &'a Resolved,
    limits: Limits,
    shells: Vec<Shell>,
    /// `true` once one was ready.
    has_worked: bool,
    /// Number in a row that did not become ready.
    failures: u32,
    /// When the next one is started, after a failure.
    starts_at: Option<Instant>,
    /// Number of the host's processors.
    processors: usize,
}

impl<'a> Pool<'a> {
    pub(super) fn new(resolved: &'a Resolved, limits: Limits) -> Self {
        let shells = Vec::new();
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let (has_worked, failures, starts_at) = (false, 0, None);
        Self { resolved, limits, shells, has_worked, failures, starts_at, processors }
    }

    pub(super) fn shells(&self) -> &[Shell] {
        &self.shells
    }

    /// Descriptors that are readable when a shell has ended, in order.
    pub(super) fn ends(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.shells.iter().map(|shell| shell.child.ended())
    }

    fn count(&self, stage: Stage) -> usize {
        self.shells.iter().filter(|shell| shell.stage == stage).count()
    }

    /// Starts shells if some are missing, one after the other, as the guests that run need the
    /// processors; as many at a time as there are processors if requests wait for them.
    pub(super) fn refill(&mut self, waiting: usize) -> Result<(), ClonesError> {
        let at_a_time = waiting.clamp(1, self.processors);
        while self.wants_more(at_a_time) {
            self.start()?;
        }
        Ok(())
    }

    /// Returns `true` if a shell is missing, and so many may start at a time.
    fn wants_more(&self, at_a_time: usize) -> bool {
        let starting = self.count(Stage::Starting);
        let coming = self.count(Stage::Ready).saturating_add(starting);
        let is_time = self.starts_at.is_none_or(|time| Instant::now() >= time);
        is_time
            && starting < at_a_time
            && coming < self.limits.pool.max(at_a_time)
            && self.shells.len() < self.limits.most
    }

    fn start(&mut self) -> Result<(), ClonesError> {
        let now = Instant::now();
        let started = shell::connect().and_then(|(ends, channel, files)| {
            channel.set_nonblocking(true)?;
            // What it says before it is ready must not keep the server waiting.
            let [_, errors] = &files;
            rustix::fs::fcntl_setfl(errors, OFlags::NONBLOCK)?;
            let child = fork::fork(|| shell::live(self.resolved, ends))?;
            Ok(Shell {
                child,
                channel,
                stage: Stage::Starting,
                files: Some(files),
                deadline: None,
                is_late: false,
            })
        });
        match started {
            Ok(shell) => self.shells.push(shell),
            // The host may have room again when guests have ended.
            Err(error) if self.has_worked => {
                log::warn!("starting a process for a clone: {error}");
                self.starts_at = now.checked_add(PAUSE);
            }
            Err(error) => return Err(ClonesError::host("starting a process for a clone")(error)),
        }
        Ok(())
    }

    /// Time at which there is something to do though nothing happens.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let deadlines = self.shells.iter().filter(|it| !it.is_late).filter_map(|it| it.deadline);
        let starts_at = self.starts_at.filter(|time| *time > Instant::now());
        deadlines.chain(starts_at).min()
    }

    /// Looks which shells have become ready.
    pub(super) fn take_ready(&mut self) {
        for shell in &mut self.shells {
            let mut byte = [0; READY.len()];
            if shell.stage == Stage::Starting
                && (&shell.channel).read(&mut byte).is_ok_and(|length| length > 0)
            {
                shell.stage = Stage::Ready;
                // Warnings about the host are the same for each.
                let said = shell.said();
                if !self.has_worked {
                    stderr::say(&said);
                }
                (self.has_worked, self.failures, self.starts_at) = (true, 0, None);
            }
        }
    }

    /// Returns `true` if shells do not become ready.
    pub(super) fn cannot_start(&self) -> bool {
        self.failures >= MOST_FAILURES
    }

    /// Ends guests whose time is up.
    pub(super) fn stop_late(&mut self) {
        let now = Instant::now();
        for shell in &mut self.shells {
            if !shell.is_late && shell.deadline.is_some_and(|deadline| now >= deadline) {
                shell.is_late = true;
                shell.child.signal(Signal::TERM);
            }
        }
    }

    /// Sends a signal to a process that is a shell.
    pub(super) fn signal(&self, pid: u32, signal: Signal) {
        let shell = self.shells.iter().find(|shell| shell.child.number() == pid);
        shell.inspect(|shell| shell.child.signal(signal));
    }

    /// Gives a ready shell these words, whereupon its guest runs. Returns its number and the
    /// reading ends of its standard output and error.
    pub(super) fn claim(&mut self, words: &Words) -> Option<(u32, [OwnedFd; 2])> {
        let time = self.limits.time;
        let line = wire::line(words);
        // One whose channel is broken has ended, which is noticed later.
        let mut ready = self.shells.iter_mut().filter(|shell| shell.stage == Stage::Ready);
        ready.find_map(|shell| {
            let [_, errors] = shell.files.as_ref()?;
            rustix::fs::fcntl_setfl(errors, OFlags::empty()).ok()?;
            (&shell.channel).write_all(&line).ok()?;
            shell.stage = Stage::Running;
            shell.deadline = time.and_then(|time| Instant::now().checked_add(time));
            Some((shell.child.number(), shell.files.take()?))
        })
    }

    /// Removes a shell that has ended.
    pub(super) fn remove(&mut self, position: usize) -> End {
        let mut shell = self.shells.remove(position);
        let (pid, code) = (shell.child.number(), shell.child.wait());
        let mut end = End { pid, code, message: None, failed_first: None };
        if shell.stage != Stage::Running {
            stderr::say(&shell.said());
            self.failures = self.failures.saturating_add(1);
            self.starts_at = Instant::now().checked_add(PAUSE);
            end.failed_first = (!self.has_worked).then_some(code);
        } else if shell.is_late {
            end.code = exit_code::TIME_LIMIT;
            end.message = signals::TIME_IS_UP.trim_end().strip_prefix("vmm: ");
        }
        end
    }
}

impl Shell {
    /// Text that it has written to standard error and no client has read.
    fn said(&self) -> Vec<u8> {
        let mut said = Vec::new();
        if let Some([_, errors]) = &self.files
            && let Ok(errors) = errors.try_clone()
        {
            // It ends with an error when there is nothing more now.
            let _ = File::from(errors).take(64 << 10).read_to_end(&mut said);
        }
        said
    }
}
