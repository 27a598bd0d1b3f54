//! A VM of each hypervisor, with the same RAM.

use std::sync::Arc;

use nerite_arch::CpuidEntry;
use nerite_hypervisor::{
    CoalescedWrites, Doorbells, Error, InterruptController, Vcpu, VcpuStart, VirtualClock, Vm,
    VmState,
};
use nerite_memory::GuestRam;

use crate::coalesced::Writes;
use crate::interrupts::{Bells, Controllers};
use crate::pair::{Pair, Side};
use crate::switch::Switch;
use crate::vcpu::SwitchedVcpu;

/// A VM of each hypervisor, with the same RAM.
#[derive(Debug)]
pub(crate) struct SwitchableVm {
    vms: Pair<Box<dyn Vm>>,
    switch: Arc<Switch>,
    interrupts: Option<Arc<Controllers>>,
    doorbells: Arc<Bells>,
}

impl SwitchableVm {
    pub(crate) fn new(vms: Pair<Box<dyn Vm>>, switch: Arc<Switch>) -> Self {
        let of_both = |vms: &Pair<Box<dyn Vm>>| {
            let first = vms.first.interrupt_controller()?;
            Some(Pair { first, second: vms.second.interrupt_controller()? })
        };
        let interrupts = of_both(&vms).map(|controllers| {
            let controllers = Arc::new(controllers);
            Arc::new(Controllers { controllers, switch: switch.clone() })
        });
        let doorbells = Pair { first: vms.first.doorbells(), second: vms.second.doorbells() };
        Self { vms, switch, interrupts, doorbells: Arc::new(Bells(doorbells)) }
    }

    fn active(&self) -> &dyn Vm {
        &**self.vms.get(self.switch.active())
    }
}

impl Vm for SwitchableVm {
    fn ram(&self) -> &Arc<GuestRam> {
        self.vms.first.ram()
    }

    /// The vCPU that does not run waits for a start message, which nothing sends.
    fn create_vcpu(
        &self,
        index: u32,
        start: VcpuStart<'_>,
        cpuid: &[CpuidEntry],
    ) -> Result<Box<dyn Vcpu>, Error> {
        let active = self.switch.active();
        let mut vcpus = Pair::try_new(|side| {
            let start = if side == active { start } else { VcpuStart::WaitForSipi(&[]) };
            self.vms.get(side).create_vcpu(index, start, cpuid)
        })?;
        // The rate of a time-stamp counter is the processor's where that is not in software, and
        // may be unchangeable.
        if active == Side::Second
            && let Some(rate) = vcpus.first.tsc_khz()
        {
            let mut state = vcpus.second.save()?;
            state.tsc_khz = Some(rate);
            vcpus.second.restore(&state)?;
            self.vms.second.restore(&self.vms.second.save()?)?;
        }
        Ok(Box::new(SwitchedVcpu::new(vcpus, self.switch.clone())))
    }

    fn interrupt_controller(&self) -> Option<Arc<dyn InterruptController>> {
        self.interrupts.clone().map(|interrupts| interrupts as Arc<dyn InterruptController>)
    }

    fn virtual_clock(&self) -> Option<Arc<dyn VirtualClock>> {
        None
    }

    fn doorbells(&self) -> Arc<dyn Doorbells> {
        self.doorbells.clone()
    }

    fn coalesce_port_writes(&self, first: u16, size: u16) -> Result<(), Error> {
        self.vms.iter().try_for_each(|vm| vm.coalesce_port_writes(first, size))
    }

    fn coalesced_writes(&self) -> Option<Arc<dyn CoalescedWrites>> {
        let first = self.vms.first.coalesced_writes()?;
        let second = self.vms.second.coalesced_writes()?;
        Some(Arc::new(Writes(Pair { first, second })))
    }

    fn save(&self) -> Result<VmState, Error> {
        self.active().save()
    }

    fn restore(&self, state: &VmState) -> Result<(), Error> {
        self.active().restore(state)?;
        let (active, lines) = (self.switch.active(), self.switch.raised_lines());
        let Some(interrupts) = &self.interrupts else { return Ok(()) };
        for line in lines {
            // The one that gives the guest away would keep the line up until it has it again.
            interrupts.controllers.get(active.other()).set_line(line, false)?;
            interrupts.controllers.get(active).set_line(line, true)?;
        }
        Ok(())
    }
}
