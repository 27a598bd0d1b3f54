//! The hypervisor.

use std::sync::Arc;

use nerite_arch::CpuidEntry;
use nerite_hypervisor::{Capabilities, DebugCaps, Error, Hypervisor, Vm, VmOptions};
use nerite_memory::GuestRam;

use crate::cpuid;
use crate::signal::MAX_VCPUS;
use crate::vm::SoftwareVm;

/// A hypervisor whose processors are software.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Software {}

impl Software {
    /// The hypervisor. It needs nothing of the host.
    #[must_use]
    pub const fn new() -> Self {
        Self {}
    }
}

impl Hypervisor for Software {
    fn name(&self) -> &'static str {
        "software"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { max_vcpus: MAX_VCPUS, tsc_deadline: true }
    }

    fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, Error> {
        Ok(cpuid::supported())
    }

    fn supported_msrs(&self) -> Result<Vec<u32>, Error> {
        Ok(nerite_x86::MSRS.to_vec())
    }

    fn create_vm(&self, ram: Arc<GuestRam>, options: &VmOptions) -> Result<Box<dyn Vm>, Error> {
        Ok(Box::new(SoftwareVm::new(ram, options)?))
    }

    fn debug_caps(&self) -> DebugCaps {
        DebugCaps { software: true, hardware: true }
    }
}
