//! The process of a container, told from later processes of the same number.

use std::os::fd::OwnedFd;
use std::time::Duration;

use procfs::process::{ProcState, Process};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Identity of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process identifier, as the runtime's processes see it.
    pub pid: i32,
    /// Time of its start, in clock ticks since the host's.
    pub started: u64,
}

impl Identity {
    /// Returns the identity of the process `pid`, or `None` if it does not exist.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = Process::new(pid).ok()?.stat().ok()?;
        Some(Self { pid, started: stat.starttime })
    }

    /// `true` if the process has not ended.
    #[must_use]
    pub fn is_alive(self) -> bool {
        let stat = Process::new(self.pid).and_then(|process| process.stat());
        stat.is_ok_and(|stat| {
            let state = stat.state();
            stat.starttime == self.started
                && !state.is_ok_and(|state| matches!(state, ProcState::Zombie | ProcState::Dead))
        })
    }

    /// Opens the process, or returns `None` if it has ended.
    fn open(self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // The descriptor is of the process that had the number then.
        self.is_alive().then_some(fd)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `ESRCH` if the process has ended, or that of `pidfd_send_signal`.
    pub fn send(self, signal: Signal) -> rustix::io::Result<()> {
        pidfd_send_signal(self.open().ok_or(rustix::io::Errno::SRCH)?, signal)
    }

    /// Waits for the end of the process, at most for `patience`; `true` if it has ended.
    #[must_use]
    pub fn has_ended_within(self, patience: Duration) -> bool {
        let Some(fd) = self.open() else {
            return true;
        };
        let timeout = Timespec::try_from(patience).ok();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, timeout.as_ref());
        !self.is_alive()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_until_its_end() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = Identity::of(pid).unwrap();
        assert!(process.is_alive());
        assert!(!Identity { started: process.started + 1, ..process }.is_alive());
        assert!(!process.has_ended_within(Duration::ZERO));
        process.send(Signal::KILL).unwrap();
        assert!(process.has_ended_within(Duration::from_secs(60)), "not reaped, but ended");
        assert_eq!(process.send(Signal::KILL), Err(rustix::io::Errno::SRCH));
        child.wait().unwrap();
        assert_eq!(Identity::of(pid), None);
    }
}
