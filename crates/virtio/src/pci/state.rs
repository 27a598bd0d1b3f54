//! Saved state of a function with its device.

use nerite_pci::{ConfigSpaceState, Event, MsixState};
use nerite_saved::{RestoreError, SaveError, check_version, refuse, require_same};
use serde::{Deserialize, Serialize};

use super::config::{Layout, config_space};
use super::{State, VirtioPci};
use crate::{CommonState, DeviceState, NotifierState, QueueState, VirtioDevice};

/// Version of [`VirtioPciState`].
const VERSION: u32 = 1;
const PART: &str = "virtio function";

/// State of a [`VirtioPci`] whose device has the state `S`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtioPciState<S> {
    /// Version of this layout: 1.
    pub version: u32,
    /// Virtio device identifier.
    pub kind: u16,
    /// Configuration space.
    pub config: ConfigSpaceState,
    /// MSI-X table and pending messages.
    pub msix: MsixState,
    /// Registers of the common configuration.
    pub common: CommonState,
    /// Interrupts by pin, and the device's part of the status.
    pub interrupts: NotifierState,
    /// Progress by queue number; `None` for queues that are not in use.
    pub queues: Vec<Option<QueueState>>,
    /// The device's own state.
    pub device: S,
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// State of the paused function. Guest memory belongs to it: both must be saved before
    /// [`Self::resume`].
    ///
    /// # Errors
    /// Fails if the function is not paused, or the host fails.
    pub fn save(&self) -> Result<VirtioPciState<D::State>, SaveError> {
        let state = self.lock();
        // A reset that is not through yet is, once the device is paused.
        if !state.is_paused || state.is_resetting {
            return Err(SaveError::NotPaused { part: PART });
        }
        let DeviceState { queues, device } = self.device.save().map_err(SaveError::host(PART))?;
        // A device that needs a reset is not started again.
        let is_running = state.common.is_frozen() && !self.notifier.has_failed();
        let queues = if is_running { queues } else { Vec::new() };
        Ok(VirtioPciState {
            version: VERSION,
            kind: self.device.kind().id,
            config: state.config.save(),
            msix: state.msix.save(),
            common: state.common.save(),
            interrupts: self.notifier.save(),
            queues,
            device,
        })
    }

    /// Puts the function into a saved state, with guest memory as it was then, and pauses it:
    /// [`Self::resume`] resumes it. The interrupt controllers must have their state by now, as
    /// the pin may be raised.
    ///
    /// # Errors
    /// Fails if this function cannot have the state, or the device cannot start from it. The
    /// function is to be dropped then.
    pub fn restore(&self, saved: &VirtioPciState<D::State>) -> Result<(), RestoreError> {
        check_version(PART, saved.version, VERSION)?;
        require_same(PART, "kind", saved.kind == self.device.kind().id)?;
        saved.interrupts.check()?;
        refuse(PART, "number of queues", saved.queues.len() > self.kicks.len())?;
        let mut state = self.lock();
        let layout = Layout::of(&saved.config);
        // Address and line are among the registers that are restored.
        let (config, ..) = config_space(self.device.as_ref(), &state.msix, layout, 0, 0)
            .map_err(RestoreError::failed(PART))?;
        let config = config.restored(&saved.config)?;
        let common = state.common.restored(&saved.common)?;
        require_same(
            PART,
            "features",
            !common.has_agreed() || self.device.accepts(common.features()),
        )?;
        // Queues of a device that needs a reset may be what it needs that for.
        let is_running = common.is_frozen() && !saved.interrupts.needs_reset;
        let queues =
            if is_running { common.queues_at(&saved.queues, &self.ram) } else { Ok(Vec::new()) };
        let queues = queues.map_err(RestoreError::failed(PART))?;

        self.clear(&mut state);
        state.config = config;
        state.common = common;
        let (vector, vectors) = (state.common.config_vector(), state.common.queue_vectors());
        self.notifier.restore(saved.interrupts, vector, vectors);
        state.msix.restore(&saved.msix)?;
        self.config_written(&mut state);
        if is_running {
            self.start_device(&state, queues).map_err(RestoreError::failed(PART))?;
        }
        self.notifier.set_live(state.common.is_frozen());
        self.device.restore(&saved.device)?;
        // Notifications may have been on their way.
        for (index, kick) in (0..).zip(self.kicks.iter()) {
            if state.common.is_live(index) {
                kick.signal();
            }
        }
        self.notifier.resample();
        Ok(())
    }

    /// Pauses the function and resets its device.
    fn clear(&self, state: &mut State) {
        state.is_paused = true;
        self.update_access(state);
        self.device.stop();
        self.notifier.reset();
        state.is_resetting = false;
        state.common.reset();
        self.place_doorbells(state);
        for kick in self.kicks.iter() {
            Event::take(kick);
        }
    }
}
