//! Putting a running machine back to a snapshot, in place.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nerite_memory::Reverted;
use nerite_snapshot::Snapshot;
use nerite_vcpu::{RunState, Vcpu};

use crate::handle::Handle;
use crate::snapshot::restore::Saved;
use crate::{Error, HeldEnd, MachineState, SnapshotError};

/// Number of pages up to which copying them back is faster than mapping all memory anew, which
/// costs a page fault for each page that the guest touches afterwards.
const MOST_COPIED: u64 = 8192;

/// A snapshot that has been read, to which a machine can be put back over and over
/// ([`Handle::reset_to`]).
#[derive(Debug)]
pub struct ResetPoint {
    saved: Saved,
    /// Tells it from all others of this process.
    id: u64,
}

impl ResetPoint {
    /// Reads a snapshot; with `verify`, memory and image are compared with their digests.
    ///
    /// # Errors
    /// Fails if the snapshot is malformed, damaged, or cannot be read.
    pub fn read(snapshot: Snapshot, verify: bool) -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (saved, _) = Saved::read(snapshot, verify)?;
        Ok(Self { saved, id: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    /// State of the machine besides its memory.
    pub fn state(&self) -> &MachineState {
        &self.saved.state
    }
}

/// A machine cannot be put back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResetError {
    /// It cannot be paused, or its output is not taken. It goes on as it was.
    #[error(transparent)]
    NotNow(#[from] SnapshotError),
    /// The snapshot is of a machine with other memory or other vCPUs. The machine goes on as it
    /// was.
    #[error("the snapshot is of a machine with other {0}")]
    OtherMachine(&'static str),
    /// A part could not be put back. The machine is stopped.
    #[error("the machine cannot be put back: {source}")]
    Failed {
        /// Cause.
        source: Error,
    },
}

impl Handle {
    /// Puts the machine back to `point`, a snapshot of itself or of one that is set up alike, and
    /// lets it go on from there. It keeps its threads, mappings and descriptors.
    ///
    /// Of the memory only those pages are copied that have been written to; the first time, and
    /// where `/proc/self/pagemap` cannot be opened, all is mapped anew from the snapshot's file,
    /// which must not change while the machine runs. vCPUs, interrupt controllers, devices and open
    /// files get the state that they had. What the guest has written to files and disks of the host
    /// stays. Output that it has written comes out before.
    ///
    /// vCPUs that the caller holds ([`Handle::pause`]) stay held. One that has ended its guest can
    /// go on only with [`Observe::hold_ends`](crate::config::Observe::hold_ends).
    ///
    /// # Errors
    /// Fails if a vCPU has left or waits for the host, and if the machine cannot have the state.
    pub fn reset_to(&self, point: &ResetPoint) -> Result<Reverted, ResetError> {
        let saver = &self.saver;
        let state = point.state();
        if self.chips.is_some() {
            return Err(SnapshotError::Unsupported("interrupt controllers in user space").into());
        }
        if !point.saved.has_regions(self.ram().regions()) {
            return Err(ResetError::OtherMachine("memory"));
        }
        if state.vcpus.len() != self.vcpu_count() {
            return Err(ResetError::OtherMachine("vCPUs"));
        }
        let _one = saver.lock.lock();
        let pause = self.pause_between_instructions()?;
        let quiet = saver.pause_devices(self);
        saver.drain_output()?;
        let reverted = self.put_back(point).map_err(|source| {
            self.stop();
            ResetError::Failed { source }
        })?;
        if let Some(ends) = &self.shared.ends {
            ends.resume(&self.controls);
        }
        drop((quiet, pause));
        Ok(reverted)
    }

    /// Restores everything, in the order of a restored machine. vCPUs and devices are paused.
    fn put_back(&self, point: &ResetPoint) -> Result<Reverted, Error> {
        // Before the vCPUs: some of their registers make the hypervisor write to memory.
        let reverted = self.put_memory_back(point)?;
        self.put_state_back(point.state())?;
        Ok(reverted)
    }

    /// Restores all but the memory, which has been restored.
    pub(crate) fn put_state_back(&self, state: &MachineState) -> Result<(), Error> {
        let saver = &self.saver;
        for (index, vcpu_state) in state.vcpus.iter().enumerate() {
            let vcpu_state = vcpu_state.clone();
            let restore = move |vcpu: &mut dyn Vcpu, run_state| {
                (run_state == RunState::Paused).then(|| vcpu.restore(&vcpu_state))
            };
            let restored = self.ask(index, restore).map_err(io::Error::other);
            let restored = restored.map_err(Error::host("asking a vCPU"))?;
            restored.ok_or(Error::BadState("a vCPU is in the middle of an instruction"))??;
        }
        saver.vm.restore(&state.vm)?;
        // After the chips, in which what a device raises would be lost otherwise.
        saver.devices.restore(&state.devices)?;
        self.network().restore(&state.network)?;
        saver.platform.reset(&state.platform)?;
        Ok(())
    }

    fn put_memory_back(&self, point: &ResetPoint) -> Result<Reverted, Error> {
        let mut resets = self.saver.resets.lock();
        let memory = point.saved.memory();
        if let Some((id, pagemap)) = &resets.mapped
            && *id == point.id
        {
            let reverted = self.ram().revert(memory, pagemap, MOST_COPIED);
            return reverted.map_err(Error::host("putting memory back"));
        }
        self.ram().map_again(memory).map_err(nerite_platform::Error::from)?;
        resets.mapped = File::open("/proc/self/pagemap").ok().map(|pagemap| (point.id, pagemap));
        Ok(Reverted::Mapped)
    }

    /// Waits until the guest has ended on a vCPU, which is held there
    /// ([`Observe::hold_ends`](crate::config::Observe::hold_ends)), and returns the way it did.
    /// `None` if it has not within `patience`, or the machine is ending.
    pub fn wait_for_end(&self, patience: Duration) -> Option<HeldEnd> {
        let ends = self.shared.ends.as_ref()?;
        ends.wait(Instant::now().checked_add(patience), || self.is_ending())
    }
}

#[cfg(test)]
#[path = "reset_test.rs"]
mod tests;
