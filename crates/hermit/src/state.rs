//! Saved state of a Hermit guest's platform.

use nerite_hostfs::FilesState;
use nerite_loader::LoadedKernel;
use nerite_saved::{RestoreError, check_version, refuse};
use serde::{Deserialize, Serialize};

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
    /// Open files, temporary ones, and names.
    pub(crate) files: FilesState,
}

impl HermitState {
    pub(crate) const fn of(loaded: &LoadedKernel, files: FilesState) -> Self {
        let LoadedKernel { entry, start, end, .. } = *loaded;
        Self { version: VERSION, kernel_start: start, kernel_end: end, entry, files }
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
mod tests {
    use super::*;

    #[test]
    fn a_kernels_place_comes_back() {
        let loaded =
            LoadedKernel { entry: 0x1_0000_1000, start: 0x1_0000_0000, end: 0x1_0010_0000, tls: None };
        let files = || nerite_hostfs::HostFs::new(&[], &[], nerite_hostfs::Limits::default()).unwrap().save();
        let state = HermitState::of(&loaded, files().unwrap());
        assert_eq!(state.loaded().unwrap(), loaded);
        for (version, kernel_start, kernel_end, entry) in
            [(2, 0, 2, 1), (1, 2, 2, 2), (1, 5, 2, 3), (1, 0, 2, 2), (1, 1, 2, 0)]
        {
            let state = HermitState { version, kernel_start, kernel_end, entry, files: files().unwrap() };
            assert!(state.loaded().is_err(), "{state:?}");
        }
    }
}
