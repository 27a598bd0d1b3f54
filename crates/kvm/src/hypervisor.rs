//! KVM as a hypervisor.

use std::io;
use std::sync::Arc;

use nerite_arch::CpuidEntry;
use nerite_hypervisor::{Capabilities, CounterKind, DebugCaps, Error, Hypervisor, VmOptions};
use nerite_memory::GuestRam;

use crate::error::failed;
use crate::{GuestCounter, KvmVm, System, probe};

impl Hypervisor for System {
    fn name(&self) -> &'static str {
        "KVM"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { tsc_deadline: self.has_tsc_deadline_timer(), in_kernel: true }
    }

    fn max_vcpus(&self) -> usize {
        Self::max_vcpus(self)
    }

    fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, Error> {
        Self::supported_cpuid(self)
    }

    fn supported_msrs(&self) -> Result<Vec<u32>, Error> {
        let list = self.kvm.get_msr_index_list().map_err(failed("KVM_GET_MSR_INDEX_LIST"))?;
        Ok(list.as_slice().to_vec())
    }

    fn create_vm(
        &self,
        ram: Arc<GuestRam>,
        options: &VmOptions,
    ) -> Result<Box<dyn nerite_hypervisor::Vm>, Error> {
        Ok(Box::new(KvmVm::new(self, ram, options)?))
    }

    fn debug_caps(&self) -> DebugCaps {
        probe::debugging(self)
    }

    fn open_counter(
        &self,
        kind: CounterKind,
        period: Option<u64>,
    ) -> io::Result<Box<dyn nerite_hypervisor::GuestCounter>> {
        Ok(Box::new(GuestCounter::open(kind, period)?))
    }

    fn counts_instructions(&self, counter: &dyn nerite_hypervisor::GuestCounter) -> bool {
        probe::counts_instructions(self, counter)
    }

    fn only_emulates(&self) -> bool {
        matches!(probe::try_guest(self), probe::HostKvm::Emulating { .. })
    }
}
