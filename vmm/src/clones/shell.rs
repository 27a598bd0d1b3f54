//! A shell: a process with a machine that is restored, confined, and paused before the guest's
//! first instruction.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use nerite_machine::{Identity, Opened};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;

use super::{descriptors, fork};
use crate::clone_wire::{ClonesError, Words};
use crate::error::Error;
use crate::resolve::Resolved;
use crate::run::{END_WITHIN, code, failed};
use crate::signals::{self, Signals};
use crate::{output, stderr};

/// Message of a shell that is ready.
pub(super) const READY: &[u8] = b"r";

/// The child's ends of what connects it to the server.
#[derive(Debug)]
pub(super) struct Ends {
    /// A byte when the shell is ready, then the words of the clone.
    pub(super) channel: UnixStream,
    pub(super) output: OwnedFd,
    pub(super) errors: OwnedFd,
}

/// The life of a shell, in a process that was just forked. Gives its exit code.
pub(super) fn live(resolved: &Resolved, ends: Ends) -> u8 {
    signals::forget();
    let done = prepare(ends).and_then(|channel| serve(resolved, channel));
    let code = done.unwrap_or_else(|error| {
        output::report(&error);
        error.exit_code()
    });
    stderr::finish();
    code
}

/// Leaves behind what is the server's.
fn prepare(ends: Ends) -> Result<UnixStream, Error> {
    let host = || ClonesError::host("starting a process for a clone");
    let Ends { channel, output, errors } = ends;
    // The server's end is its own, also if nothing is left of it.
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).map_err(host())?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    rustix::stdio::dup2_stdin(&null.map_err(host())?).map_err(host())?;
    rustix::stdio::dup2_stdout(&output).map_err(host())?;
    rustix::stdio::dup2_stderr(&errors).map_err(host())?;
    drop((output, errors));
    // Before the descriptor of the server's standard error is closed.
    stderr::open();
    let keep: Vec<_> = stderr::descriptor().into_iter().chain([channel.as_raw_fd()]).collect();
    crate::descriptors::close_inherited(&keep).map_err(Error::Descriptors)?;
    Ok(channel)
}

fn serve(resolved: &Resolved, mut channel: UnixStream) -> Result<u8, Error> {
    let mut config = resolved.config.clone();
    // The server's: it counts from the request.
    config.observe.time_limit = None;
    let failed = |source| failed(&config, source);
    let mut opened = Opened::open(&config).map_err(failed)?;
    let signals = Signals::listen().map_err(Error::Signals)?;
    signals.end_within(END_WITHIN);
    let policy = resolved.options.sandbox.policy(Some(descriptors(resolved)));
    for missing in opened.confine(&policy, &[]).map_err(failed)? {
        log::warn!("{missing}");
    }
    let machine = opened.build().map_err(failed)?;
    let stop = signals.fd().map_err(Error::Signals)?;
    let (running, pause) = machine.start_paused().map_err(failed)?;
    fork::trim();
    let host = || ClonesError::host("talking to the server of clones");
    channel.write_all(READY).map_err(host())?;
    let words = match next_words(&channel, &signals).map_err(host())? {
        Some(words) => words,
        None => return Ok(signals.received().map_or(0, crate::exit_code::from_signal)),
    };
    if words != Words::default() {
        let Words { args, env } = words;
        let identity = Identity { app_args: args, env, ..Identity::default() };
        running.handle().renew(&identity).map_err(|error| Error::Usage(error.to_string()))?;
    }
    drop(pause);
    let (outcome, _, remains) = running.wait_and_leave(Some(stop));
    std::mem::forget(remains);
    Ok(code(&outcome.map_err(failed)?, &signals))
}

/// Waits for the words of the clone; `None` if there will be none.
fn next_words(channel: &UnixStream, signals: &Signals) -> io::Result<Option<Words>> {
    let mut text = Vec::new();
    loop {
        let stop = signals.fd()?;
        let mut polled =
            [PollFd::new(channel, PollFlags::IN), PollFd::from_borrowed_fd(stop, PollFlags::IN)];
        match poll(&mut polled, None) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let [_, stopped] = &polled;
        if !stopped.revents().is_empty() {
            return Ok(None);
        }
        let mut bytes = [0; 4096];
        // Not as from a socket: that is a call of its own, which is not allowed.
        let length = rustix::io::read(channel, &mut bytes)?;
        if length == 0 {
            return Ok(None);
        }
        text.extend_from_slice(bytes.get(..length).unwrap_or_default());
        if text.ends_with(b"\n") {
            return Ok(Some(serde_json::from_slice(&text)?));
        }
    }
}

/// Both ends of what connects a shell and the server.
pub(super) fn connect() -> io::Result<(Ends, UnixStream, [OwnedFd; 2])> {
    let (own, channel) = UnixStream::pair()?;
    let flags = rustix::pipe::PipeFlags::CLOEXEC;
    let (read_output, output) = rustix::pipe::pipe_with(flags)?;
    let (read_errors, errors) = rustix::pipe::pipe_with(flags)?;
    debug_assert!(channel.as_fd().as_raw_fd() > 2, "the standard descriptors are open");
    Ok((Ends { channel, output, errors }, own, [read_output, read_errors]))
}
