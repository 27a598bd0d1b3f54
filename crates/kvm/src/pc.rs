//! What machines need that kernels without knowledge of Nerite run on: interrupts from devices, processors that wait.

use std::os::fd::AsFd;

use nerite_arch::{CpuidEntry, Msr};
use nerite_event::Event;

use crate::interrupts::eventfd;
use crate::{Error, KvmVcpu, Vm};

impl Vm {
    /// Creates an event whose every signal is a rising edge at interrupt `gsi` of the PIC and the I/O APIC.
    ///
    /// It is connected until this VM and all [`Interrupts`](crate::Interrupts) of it are dropped: vCPUs do not keep it.
    ///
    /// # Errors
    /// If the host has no descriptor left, or KVM refuses.
    pub fn edge_interrupt(&self, gsi: u32) -> Result<Event, Error> {
        let call = "KVM_IRQFD";
        let event = Event::new().map_err(|source| Error::Call { operation: "creating an eventfd", source })?;
        self.fd.register_irqfd(&eventfd(event.as_fd())?, gsi).map_err(Error::call(call))?;
        Ok(event)
    }

    /// Creates vCPU number `index` as an application processor after a reset: it waits for INIT and SIPI (Intel SDM
    /// vol. 3, 10.4.4), which set its registers.
    ///
    /// # Errors
    /// If a call of KVM fails, or KVM refuses an MSR (which is named).
    pub fn create_waiting_vcpu(
        &self,
        index: u32,
        cpuid: &[CpuidEntry],
        msrs: &[Msr],
    ) -> Result<KvmVcpu, Error> {
        self.new_vcpu(index, cpuid, msrs)
    }
}
