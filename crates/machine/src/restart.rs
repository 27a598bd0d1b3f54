//! Restarting a machine whose guest reboots, in place.

use std::io;
use std::time::{Duration, Instant};

use nerite_event::Event;
use nerite_memory::{Contents, PageMap};

use crate::handle::Handle;
use crate::{Error, MachineState, ResetError, SnapshotError};

/// Time until the next try, if a vCPU or the reader of the output is in the way.
const AGAIN: Duration = Duration::from_millis(20);

/// A machine before its first instruction, and the guest's wish to be there again.
///
/// All that a restart needs is here, so that a confined process can do it.
#[derive(Debug)]
pub(crate) struct Restart {
    state: MachineState,
    memory: Contents,
    /// Signalled when the guest has reset itself.
    resets: Event,
    /// Time of the next try; `None` if the guest does not want one.
    due: Option<Instant>,
    /// Number of restarts so far.
    count: u64,
}

impl Handle {
    /// Copies the state that the machine has, whose vCPUs are held before their first instruction.
    ///
    /// # Errors
    /// Fails if the machine has a part without a saved state.
    pub(crate) fn start_state(
        &self,
        resets: Event,
        page_map: Option<&PageMap>,
    ) -> Result<Restart, SnapshotError> {
        let pause = self.pause_between_instructions()?;
        let quiet = self.saver.pause_devices(self);
        let state = self.saver.state(self)?;
        let memory = self.ram().contents(page_map);
        let memory = memory.map_err(SnapshotError::host("copying the memory"))?;
        drop((quiet, pause));
        log::debug!("{} KiB of memory are kept for a restart", memory.size() >> 10);
        Ok(Restart { state, memory, resets, due: None, count: 0 })
    }

    /// Puts the machine into the state from before its first instruction, and resumes it. Output
    /// that the guest has written comes out before.
    fn restart(&self, start: &Restart) -> Result<(), ResetError> {
        let saver = &self.saver;
        let _one = saver.lock.lock();
        let pause = self.pause_between_instructions()?;
        let quiet = saver.pause_devices(self);
        saver.drain_output()?;
        let memory = self.ram().set_contents(&start.memory).map_err(io::Error::other);
        let memory = memory.map_err(Error::host("putting memory back"));
        memory
            .and_then(|()| self.put_state_back(&start.state))
            .map_err(|source| ResetError::Failed { source })?;
        if let Some(ends) = &self.shared.ends {
            ends.resume(&self.controls);
        }
        drop((quiet, pause));
        Ok(())
    }
}

impl Restart {
    /// Event that is signalled when the guest has reset itself.
    pub(crate) fn resets(&self) -> &Event {
        &self.resets
    }

    /// Time of the next try, if the guest wants to restart.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Number of restarts so far.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Restarts the machine if the guest has reset itself now, or a restart is due. A machine that
    /// cannot be paused is tried again later.
    ///
    /// # Errors
    /// Fails if a part of the machine cannot have its first state again.
    pub(crate) fn restart_if_due(&mut self, handle: &Handle, has_reset: bool) -> Result<(), Error> {
        if has_reset && self.resets.take() {
            self.due = Some(Instant::now());
        }
        if self.due.is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        match handle.restart(self) {
            Ok(()) => {
                self.due = None;
                self.count = self.count.saturating_add(1);
                log::info!("the guest has reset itself; this is restart {}", self.count);
                Ok(())
            }
            Err(ResetError::NotNow(
                reason @ (SnapshotError::Busy { .. } | SnapshotError::OutputBlocked),
            )) => {
                log::debug!("the restart waits: {reason}");
                self.due = Instant::now().checked_add(AGAIN);
                Ok(())
            }
            Err(ResetError::Failed { source }) => Err(source),
            Err(other) => Err(Error::host("restarting the guest")(io::Error::other(other))),
        }
    }
}

#[cfg(test)]
#[path = "restart_test.rs"]
mod tests;
