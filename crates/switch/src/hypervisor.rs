//! Two hypervisors as one.

use std::sync::Arc;

use nerite_arch::{CpuidEntry, cpuid};
use nerite_hypervisor::{Capabilities, DebugCaps, Error, Hypervisor, Vm, VmOptions};
use nerite_memory::GuestRam;

use crate::pair::{Pair, Side};
use crate::switch::Switch;
use crate::vm::SwitchableVm;

/// Leaves of the hypervisor, and the one with the rate of the time-stamp counter, as VMware and KVM
/// have them.
const SIGNATURE: u32 = 0x4000_0000;
const TSC_RATE: u32 = 0x4000_0010;

/// A hypervisor that is two: its VM is a VM of each, with the same RAM, and its guest runs on one
/// of them at a time. It has one VM.
#[derive(Debug)]
pub struct Switchable {
    hypervisors: Pair<Arc<dyn Hypervisor>>,
    switch: Arc<Switch>,
}

impl Switchable {
    /// Makes one of two; the guest starts on `start`. Its time-stamp counter has the rate of
    /// `first`, and its CPUID leaves are those of `second` with the features that both have.
    pub fn new(first: Arc<dyn Hypervisor>, second: Arc<dyn Hypervisor>, start: Side) -> Self {
        let names = Pair { first: first.name(), second: second.name() };
        let switch = Arc::new(Switch::new(names, start));
        Self { hypervisors: Pair { first, second }, switch }
    }

    /// The choice between the two.
    pub fn switch(&self) -> &Arc<Switch> {
        &self.switch
    }
}

impl Hypervisor for Switchable {
    /// Name of the one that has the guest.
    fn name(&self) -> &'static str {
        self.switch.name(self.switch.active())
    }

    fn capabilities(&self) -> Capabilities {
        let [first, second] =
            [&self.hypervisors.first, &self.hypervisors.second].map(|it| it.capabilities());
        Capabilities {
            tsc_deadline: first.tsc_deadline && second.tsc_deadline,
            in_kernel: first.in_kernel || second.in_kernel,
        }
    }

    fn max_vcpus(&self) -> usize {
        self.hypervisors.first.max_vcpus().min(self.hypervisors.second.max_vcpus())
    }

    fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, Error> {
        let (first, second) =
            (self.hypervisors.first.supported_cpuid()?, self.hypervisors.second.supported_cpuid()?);
        let mut leaves = cpuid::common(&second, &first);
        leaves.retain(|leaf| leaf.function != TSC_RATE);
        for leaf in leaves.iter_mut().filter(|leaf| leaf.function == SIGNATURE) {
            leaf.eax = leaf.eax.min(TSC_RATE.saturating_sub(1));
        }
        Ok(leaves)
    }

    fn supported_msrs(&self) -> Result<Vec<u32>, Error> {
        let second = self.hypervisors.second.supported_msrs()?;
        let mut msrs = self.hypervisors.first.supported_msrs()?;
        msrs.retain(|index| second.contains(index));
        Ok(msrs)
    }

    fn create_vm(&self, ram: Arc<GuestRam>, options: &VmOptions) -> Result<Box<dyn Vm>, Error> {
        let create = |side| self.hypervisors.get(side).create_vm(ram.clone(), options);
        Ok(Box::new(SwitchableVm::new(Pair::try_new(create)?, self.switch.clone())))
    }

    fn debug_caps(&self) -> DebugCaps {
        let [first, second] =
            [&self.hypervisors.first, &self.hypervisors.second].map(|it| it.debug_caps());
        DebugCaps {
            software: first.software && second.software,
            hardware: first.hardware && second.hardware,
        }
    }

    fn only_emulates(&self) -> bool {
        self.hypervisors.get(self.switch.active()).only_emulates()
    }
}
