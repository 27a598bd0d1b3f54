//! Handles Hermit's hypercalls.
//!
//! A parameter structure is read once into a local copy, and only its result field is written back:
//! another vCPU may change it at any time. A pointer that does not lie in RAM is answered with
//! `EFAULT` where the call has a result, and logged where it has none.

mod buffers;
mod command_line;
mod end_of_environment;
mod files;
mod streams;
mod v1;
mod v2;

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use nerite_devices::{Console, Input};
use nerite_hostfs::HostFs;
use nerite_memory::{AccessError, GuestRam};

use nerite_platform::{LogBudget, Rate, StopToken};

pub(crate) use buffers::Scratch;
pub(crate) use command_line::CommandLine;

/// Continuation of a vCPU after a hypercall.
#[derive(Debug)]
pub(crate) enum Next {
    /// With the next instruction.
    Resume,
    /// Not: the guest ended itself with this code.
    Exit(i32),
    /// Not: the host failed at something the guest must be able to rely on.
    Host(io::Error),
    /// Not: the machine is being stopped.
    Stopped,
    /// Not yet: another thread has a request for this vCPU while it waits for the host. Nothing of
    /// the call is done; make it again.
    Again,
}

/// Reason why a call was given up half way.
enum Stop {
    /// Its parameters, or the field for its result, are not in RAM.
    Pointer(AccessError),
    /// The vCPU does not resume.
    Next(Next),
}

impl From<AccessError> for Stop {
    fn from(error: AccessError) -> Self {
        Self::Pointer(error)
    }
}

impl From<Next> for Stop {
    fn from(next: Next) -> Self {
        Self::Next(next)
    }
}

impl From<nerite_vcpu::Error> for Stop {
    fn from(error: nerite_vcpu::Error) -> Self {
        Self::Next(Next::Host(io::Error::other(error)))
    }
}

/// Answers hypercalls. Shared by all vCPUs; holds no lock of its own.
#[derive(Debug)]
pub(crate) struct Hypercalls {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) console: Arc<Console>,
    pub(crate) input: Input,
    pub(crate) files: HostFs,
    pub(crate) command_line: Mutex<Arc<CommandLine>>,
    /// The end of the machine.
    pub(crate) stop: StopToken,
    /// Limit on the rate of the guest's console output.
    pub(crate) rate: Option<Arc<Rate>>,
    pub(crate) budget: LogBudget,
}

impl Hypercalls {
    /// Arguments and environment as they are now.
    fn words(&self) -> Arc<CommandLine> {
        self.command_line.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces arguments and environment.
    pub(crate) fn set_words(&self, words: Arc<CommandLine>) {
        *self.command_line.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    fn is_stopping(&self) -> bool {
        self.stop.is_requested()
    }

    /// Waits until the guest may write so many bytes, with no lock held.
    fn throttle(&self, bytes: usize) -> Result<(), Next> {
        let Some(rate) = &self.rate else { return Ok(()) };
        match rate.wait(bytes, &self.console, &self.stop) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Next::Stopped),
            Err(error) => Err(Next::Host(error)),
        }
    }

    /// `true` if the guest may write a byte now without being made to wait. If so, the byte counts.
    pub(crate) fn has_rate_left(&self) -> bool {
        self.rate.as_ref().is_none_or(|rate| rate.take_one())
    }

    /// Writes one byte to the console.
    pub(crate) fn put(&self, byte: u8) -> Next {
        match self.throttle(1) {
            Ok(()) => self.after_write(self.console.put(byte)),
            Err(next) => next,
        }
    }

    /// Turns the console's answer to a write into the vCPU's continuation.
    fn after_write(&self, written: io::Result<()>) -> Next {
        match written {
            Ok(()) => Next::Resume,
            Err(error) if error.kind() == io::ErrorKind::Interrupted && self.is_stopping() => {
                Next::Stopped
            }
            Err(error) => Next::Host(error),
        }
    }

    /// Waits for input and reads it. A signal ends the wait: with [`Next::Again`], or
    /// [`Next::Stopped`].
    fn read_input(&self, buffer: &mut [u8]) -> Result<usize, Next> {
        // A prompt must be seen before its answer is waited for.
        if let Err(error) = self.console.flush() {
            log::debug!("flushing before a read: {error}");
        }
        self.input.read(buffer, self.stop.as_fd()).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted if self.is_stopping() => Next::Stopped,
            io::ErrorKind::Interrupted => Next::Again,
            _ => Next::Host(error),
        })
    }

    fn bad_pointer(&self, call: &str, error: &AccessError) {
        self.budget.guest_error(format_args!("hypercall {call}: {error}"));
    }
}

#[cfg(test)]
mod tests;
