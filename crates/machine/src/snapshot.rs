//! Snapshots of a running machine.

use std::io;
use std::time::{Duration, Instant};

use nerite_hypervisor::{VcpuState, VmState, synchronise_tscs};
use nerite_platform::PlatformState;
use nerite_saved::SaveError;
use nerite_service::SnapshotReport;
use nerite_snapshot::{Files, Manifest, Region};
use nerite_vcpu::{AskError, Held, RunState};
use serde::{Deserialize, Serialize};

use crate::devices::{Devices, DevicesState};
use crate::handle::{Handle, HandleError, Pause};
use crate::network::{Network, NetworkState};
use crate::saver::Saver;
use crate::setup::Setup;

pub(crate) mod planned;
pub(crate) mod restore;

/// Program that writes snapshots.
const WRITER: &str = concat!("nerite ", env!("CARGO_PKG_VERSION"));
/// Number of times that vCPUs are paused to find none in a service of the host.
const TRIES: u32 = 20;
/// Time between them, for the service to come to its end.
const BETWEEN: Duration = Duration::from_millis(5);
/// Time for the guest's output to be taken by the host.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// State of a machine besides its memory and image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineState {
    /// Hypervisor that it ran on. It may be restored on another one.
    pub hypervisor: String,
    /// Configuration that its guest relies on.
    pub setup: Setup,
    /// State of each vCPU.
    pub vcpus: Vec<VcpuState>,
    /// State of what the vCPUs share.
    pub vm: VmState,
    /// State of disks and other devices.
    pub devices: DevicesState,
    /// State of the network cards.
    pub network: NetworkState,
    /// State of the platform.
    pub platform: PlatformState,
}

/// A snapshot cannot be made. The machine keeps running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Snapshots were not prepared when the machine was built.
    #[error("this machine was started without `Observe::snapshots`")]
    NotPrepared,
    /// A vCPU waits for the host.
    #[error(
        "vCPU {index} waits for the host in a call, such as a read of its input; try again later"
    )]
    Busy {
        /// The vCPU.
        index: usize,
    },
    /// The output of the guest is not taken.
    #[error("the guest's output is not taken by its reader, and would be lost")]
    OutputBlocked,
    /// A part of the machine that has no saved state.
    #[error("a machine with {0} cannot be saved")]
    Unsupported(&'static str),
    /// The image is not the one that was booted any more.
    #[error("the image has changed since the guest was booted from it")]
    ImageChanged,
    /// A vCPU does not answer.
    #[error(transparent)]
    Vcpu(#[from] HandleError),
    /// The hypervisor failed.
    #[error(transparent)]
    Hypervisor(#[from] nerite_hypervisor::Error),
    /// A part cannot be saved.
    #[error(transparent)]
    Part(#[from] SaveError),
    /// The files cannot be written.
    #[error(transparent)]
    Files(#[from] nerite_snapshot::Error),
    /// The host failed.
    #[error("{what}")]
    Host {
        /// The operation.
        what: &'static str,
        /// Cause.
        source: io::Error,
    },
}

impl SnapshotError {
    pub(crate) fn host(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}

impl Handle {
    /// Writes a snapshot to `files`, which are empty; that of the memory can have earlier contents
    /// of RAM, of which only pages that differ are written then. The guest is paused meanwhile, but
    /// for the digests at the end, and resumes as it was.
    ///
    /// # Errors
    /// Fails if the machine cannot be saved now or not at all, or a file cannot be written. The
    /// machine is as it was, and the files are to be removed.
    pub fn snapshot(&self, files: &Files) -> Result<SnapshotReport, SnapshotError> {
        let saver = &self.saver;
        let image = saver.image.as_ref().ok_or(SnapshotError::NotPrepared)?;
        if self.chips.is_some() {
            return Err(SnapshotError::Unsupported("interrupt controllers in user space"));
        }
        let _one = saver.lock.lock();
        let pause = self.pause_between_instructions()?;
        let paused = Instant::now();
        // Before the chips are saved: what a device raises on the way is in them then.
        let quiet = saver.pause_devices(self);
        let state = saver.state(self)?;
        let page_map = saver.page_map.as_ref();
        let data = files.memory.metadata().and_then(|it| match it.len() {
            0 => self.ram().write_sparse(&files.memory, page_map),
            _ => self.ram().write_changes(&files.memory, page_map),
        });
        let data = data.map_err(SnapshotError::host("writing the memory"))?;
        drop((quiet, pause));
        let paused = paused.elapsed();
        let copied = image.copy_to(&files.image);
        if !copied.map_err(SnapshotError::host("copying the image"))? {
            return Err(SnapshotError::ImageChanged);
        }
        let memory = self
            .ram()
            .regions()
            .iter()
            .map(|region| Region { start: region.start, size: region.size });
        let memory = memory.collect();
        files.describe(|memory_digest, image_digest| Manifest {
            writer: WRITER.to_owned(),
            memory,
            memory_digest,
            image_digest,
            state,
        })?;
        Ok(SnapshotReport { memory: self.ram().size(), data, paused })
    }

    /// Pauses all vCPUs where no instruction is half done. One that is in a call is given time to
    /// come out of it.
    pub(crate) fn pause_between_instructions(&self) -> Result<Pause, SnapshotError> {
        let mut tries = 0;
        loop {
            let pause = self.pause();
            let Some(index) = pause.held().position(|held| held != Held::Paused) else {
                return Ok(pause);
            };
            if pause.held().nth(index) == Some(Held::Stopped) {
                return Err(HandleError::Ask { index, source: AskError::Stopped }.into());
            }
            if tries == TRIES {
                return Err(SnapshotError::Busy { index });
            }
            drop(pause);
            tries = tries.saturating_add(1);
            std::thread::sleep(BETWEEN);
        }
    }

    /// State of each vCPU. All are paused between two instructions.
    pub(crate) fn save_vcpus(&self) -> Result<Vec<VcpuState>, SnapshotError> {
        let save =
            |index| self.ask(index, |vcpu, state| (state == RunState::Paused).then(|| vcpu.save()));
        let mut vcpus = Vec::with_capacity(self.vcpu_count());
        for index in 0..self.vcpu_count() {
            vcpus.push(save(index)?.ok_or(SnapshotError::Busy { index })??);
        }
        synchronise_tscs(&mut vcpus);
        Ok(vcpus)
    }
}

/// Devices that are paused.
pub(crate) struct QuietDevices<'a> {
    devices: &'a Devices,
    network: &'a Network,
}

impl Drop for QuietDevices<'_> {
    fn drop(&mut self) {
        self.devices.resume();
        self.network.resume();
    }
}

impl Saver {
    /// Pauses all devices until the result is dropped.
    pub(crate) fn pause_devices<'a>(&'a self, handle: &'a Handle) -> QuietDevices<'a> {
        self.devices.pause();
        handle.network().pause();
        QuietDevices { devices: &self.devices, network: handle.network() }
    }

    /// State of the machine, whose vCPUs and devices are paused.
    pub(crate) fn state(&self, handle: &Handle) -> Result<MachineState, SnapshotError> {
        self.drain_output()?;
        Ok(MachineState {
            hypervisor: self.hypervisor.name().to_owned(),
            setup: self.setup.lock().clone(),
            vcpus: handle.save_vcpus()?,
            // After the devices have stopped and the vCPUs have settled: no interrupt is under way.
            vm: self.vm.save()?,
            devices: self.devices.save()?,
            network: handle.network().save()?,
            platform: self.platform.save()?,
        })
    }

    /// Passes on all output that the guest has written: it is not part of the state.
    pub(crate) fn drain_output(&self) -> Result<(), SnapshotError> {
        let begin = Instant::now();
        loop {
            self.platform.collect_coalesced(true);
            let flushed =
                self.console.flush().map_err(SnapshotError::host("writing the guest's output"))?;
            if flushed && !self.platform.has_coalesced() {
                return Ok(());
            }
            if begin.elapsed() > DRAIN_TIME {
                return Err(SnapshotError::OutputBlocked);
            }
            if !flushed {
                std::thread::sleep(BETWEEN);
            }
        }
    }
}

#[cfg(test)]
#[path = "snapshot_test.rs"]
mod tests;
