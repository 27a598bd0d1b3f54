//! Saved state of a Hermit guest's platform.

use nerite_devices::ConsoleState;
use nerite_hostfs::{FilesState, OnChanged};
use nerite_loader::LoadedKernel;
use nerite_pci::ConfigPortsState;
use nerite_saved::{RestoreError, SaveError, check_version, refuse};
use serde::{Deserialize, Serialize};

use crate::dispatch::Shared;

/// Version of [`HermitState`].
const VERSION: u32 = 1;
const PART: &str = "Hermit guest";

/// State of the platform. The image gives the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HermitState {
    /// Version of this layout: 1.
    version: u32,
    /// First guest-physical address of the kernel.
    kernel_start: u64,
    /// Address after its last one.
    kernel_end: u64,
    /// Its entry point.
    entry: u64,
    /// Output that waits for the end of its line.
    console: ConsoleState,
    /// Ports of the PCI host.
    pci: ConfigPortsState,
    /// Open files, temporary ones, and names.
    files: FilesState,
}

impl HermitState {
    /// The state of a guest's platform, which has no coalesced writes.
    pub(crate) fn of(loaded: &LoadedKernel, shared: &Shared) -> Result<Self, SaveError> {
        if shared.has_coalesced() {
            return Err(SaveError::OutputBlocked { part: PART });
        }
        let LoadedKernel { entry, start, end, .. } = *loaded;
        Ok(Self {
            version: VERSION,
            kernel_start: start,
            kernel_end: end,
            entry,
            console: shared.calls.console.save(),
            pci: shared.pci.save(),
            files: shared.calls.files.save()?,
        })
    }

    /// Puts `shared` into this state.
    pub(crate) fn restore(
        &self,
        shared: &Shared,
        on_changed: OnChanged,
    ) -> Result<(), RestoreError> {
        shared.calls.console.restore(&self.console)?;
        shared.pci.restore(self.pci)?;
        shared.calls.files.restore(&self.files, on_changed)
    }

    /// The kernel as it lies in memory. Only reports and debuggers look there.
    pub(crate) fn loaded(&self) -> Result<LoadedKernel, RestoreError> {
        check_version(PART, self.version, VERSION)?;
        let Self { kernel_start: start, kernel_end: end, entry, .. } = *self;
        refuse(PART, "place of the kernel", start >= end || !(start..end).contains(&entry))?;
        // The template of thread-local storage is for the first vCPU's start.
        Ok(LoadedKernel { entry, start, end, tls: None })
    }
}

#[cfg(test)]
#[path = "state_test.rs"]
mod tests;
