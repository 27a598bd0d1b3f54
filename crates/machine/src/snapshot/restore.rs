//! Restores a machine.

use std::fs::File;

use nerite_arch::{CpuidEntry, cpuid};
use nerite_hypervisor::{Vcpu, VcpuStart, Vm};
use nerite_memory::{Backing, GuestRam, Region};
use nerite_snapshot::{Manifest, Snapshot};

use super::MachineState;
use crate::Error;

/// A snapshot that has been read: its parts, in the order in which they are needed.
#[derive(Debug)]
pub(crate) struct Saved {
    memory: File,
    regions: Vec<Region>,
    pub(crate) state: MachineState,
}

impl Saved {
    /// Reads the description, and with `verify` all of the memory. Nothing of the state is checked
    /// yet. Returns the image, too.
    pub(crate) fn read(snapshot: Snapshot, verify: bool) -> Result<(Self, File), Error> {
        let manifest = snapshot.read::<MachineState>()?;
        if verify {
            snapshot.verify(&manifest)?;
        }
        let Manifest { memory: regions, state, .. } = manifest;
        let regions =
            regions.iter().map(|region| Region { start: region.start, size: region.size });
        let regions = regions.collect();
        let (memory, image) = snapshot.into_files();
        Ok((Self { memory, regions, state }, image))
    }

    /// The file with the contents of RAM.
    pub(crate) fn memory(&self) -> &File {
        &self.memory
    }

    /// Returns `true` if RAM has these regions.
    pub(crate) fn has_regions(&self, regions: &[Region]) -> bool {
        self.regions == regions
    }

    /// RAM, mapped from the snapshot.
    pub(crate) fn ram(&self, backing: &Backing) -> Result<GuestRam, Error> {
        Ok(GuestRam::from_file(&self.regions, backing, &self.memory)
            .map_err(nerite_platform::Error::from)?)
    }

    /// Creates the vCPUs of the VM and gives them their states, then gives the chips theirs.
    ///
    /// The order is that in which the states depend on each other. CPUID comes first, because MSRs
    /// and extended state are checked against it. Each vCPU has its local APIC before the shared
    /// chips are restored, which may deliver an interrupt to it at once. Devices come after the
    /// chips: what they raise would be overwritten.
    pub(crate) fn restore_vcpus(
        &self,
        vm: &dyn Vm,
        vcpus: u32,
        host_cpuid: &[CpuidEntry],
    ) -> Result<Vec<Box<dyn Vcpu>>, Error> {
        let states = &self.state.vcpus;
        if u32::try_from(states.len()) != Ok(vcpus) {
            return Err(Error::BadState("the number of vCPUs is not that of the guest"));
        }
        let missing =
            states.iter().find_map(|state| cpuid::missing_feature(&state.cpuid, host_cpuid));
        if let Some(feature) = missing {
            return Err(Error::MissingFeature { feature });
        }
        // Starting vCPUs checks neither the state nor its version: restoring does.
        let restored = (0..vcpus).zip(states).map(|(index, state)| {
            let mut vcpu = vm.create_vcpu(index, VcpuStart::WaitForSipi(&[]), &state.cpuid)?;
            vcpu.restore(state)?;
            Ok(vcpu)
        });
        let restored = restored.collect::<Result<Vec<_>, Error>>()?;
        vm.restore(&self.state.vm)?;
        Ok(restored)
    }
}

/// An image or a snapshot, opened.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The guest is booted.
    Image(nerite_loader::ImageSource),
    /// The same, of an image that is not put together yet.
    Late(Box<dyn crate::LateImage>),
    /// The guest resumes.
    Snapshot(Box<Snapshot>),
}
