//! Interrupts of a machine whose interrupt controllers are not the VM's.

use nerite_arch::Regs;
use nerite_hypervisor::{DirectInterrupts, Error, InterruptState};

use super::SoftwareVcpu;

impl DirectInterrupts for SoftwareVcpu {
    fn interrupt_state(&mut self) -> InterruptState {
        InterruptState {
            accepts: self.cpu.can_interrupt(),
            enabled: self.cpu.regs().rflags & Regs::RFLAGS_IF != 0,
            priority_class: u8::try_from(self.cpu.cr8()).unwrap_or(0),
            apic_base: self.cpu.special_regs().apic_base,
        }
    }

    fn inject_interrupt(&mut self, vector: u8) -> Result<(), Error> {
        self.cpu.inject_interrupt(vector);
        Ok(())
    }

    fn request_interrupt_window(&mut self, wanted: bool) {
        self.cpu.request_interrupt_window(wanted);
    }

    fn set_priority_class(&mut self, class: u8) {
        self.cpu.set_cr8(class.into());
    }
}
