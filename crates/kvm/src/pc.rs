//! What machines need that kernels without knowledge of Nerite run on: interrupts from devices, processors that wait.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use nerite_arch::{CpuidEntry, Msr};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{Error, KvmVcpu, Vm};

impl Vm {
    /// An eventfd whose every signal is a rising edge at interrupt `gsi` of the PIC and the I/O APIC.
    ///
    /// It is connected until this VM and all [`Interrupts`](crate::Interrupts) of it are dropped: vCPUs do not keep it.
    ///
    /// # Errors
    /// If the host has no descriptor left, or KVM refuses.
    pub fn edge_interrupt(&self, gsi: u32) -> Result<OwnedFd, Error> {
        let call = "KVM_IRQFD";
        let event = EventFd::new(EFD_NONBLOCK)
            .map_err(|error| Error::call(call)(kvm_ioctls::Error::new(error.raw_os_error().unwrap_or(0))))?;
        self.fd.register_irqfd(&event, gsi).map_err(Error::call(call))?;
        // SAFETY: `into_raw_fd` gives up the descriptor, which is open and now belongs to nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(event.into_raw_fd()) })
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
