//! The user's terminal while a guest has it.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::panic;

use nerite_devices::{RawMode, Restore};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::bus_error;

/// Standard input as a terminal that the guest has, if it is one.
///
/// The old mode comes back when this is dropped, at a panic, and as soon as a signal arrives that
/// ends the run - before another one can end the process on the spot.
#[derive(Debug)]
pub struct Terminal {
    _raw: Option<RawMode>,
}

impl Terminal {
    /// Gives the terminal to the guest. `signals` becomes readable with a signal that ends the run.
    ///
    /// # Errors
    ///
    /// If the terminal refuses, or the host has no thread left.
    pub fn give(signals: BorrowedFd<'_>) -> std::io::Result<Self> {
        let raw = RawMode::enter(rustix::stdio::stdin())?;
        if let Some(raw) = &raw {
            restore_at_panic(raw.restore());
            restore_at_signal(raw.restore(), signals)?;
        }
        Ok(Self { _raw: raw })
    }
}

fn restore_at_panic(restore: Restore) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore.now();
        before(info);
    }));
}

/// The thread ends with the process.
fn restore_at_signal(restore: Restore, signals: BorrowedFd<'_>) -> std::io::Result<()> {
    let signals = signals.try_clone_to_owned()?;
    let bus_error = bus_error::event()?;
    std::thread::Builder::new().name("terminal".to_owned()).spawn(move || {
        let signals = signals.as_fd();
        let mut ends = [signals, bus_error].map(|it| PollFd::from_borrowed_fd(it, PollFlags::IN));
        while poll(&mut ends, None) == Err(Errno::INTR) {}
        restore.now();
        bus_error::terminal_is_restored();
    })?;
    Ok(())
}
