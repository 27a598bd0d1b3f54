//! A vCPU around another one.

use nerite_arch::{Fpu, Regs, SpecialRegs};

use crate::{
    DebugControl, Debugger, DirectInterrupts, Entry, Error, Exit, GuestCounter, InstructionCounter,
    KickTimer, Kicker, Statistics, Vcpu, VcpuState,
};

/// A vCPU around another one: it takes part in the steps and passes everything else on.
pub trait Layer: std::fmt::Debug + Send {
    /// The vCPU within.
    fn inner(&self) -> &dyn Vcpu;

    /// The vCPU within.
    fn inner_mut(&mut self) -> &mut dyn Vcpu;

    /// [`Vcpu::run`] of this layer.
    ///
    /// # Errors
    /// As [`Vcpu::run`].
    fn run_layer(&mut self, entry: Entry) -> Result<Exit, Error>;

    /// [`Vcpu::complete`] of this layer.
    ///
    /// # Errors
    /// As [`Vcpu::complete`].
    fn complete_layer(&mut self, entry: Entry) -> Result<Option<Exit>, Error>;

    /// [`Vcpu::debugger`] of this layer.
    fn debugger_layer(&mut self) -> Option<&mut dyn Debugger> {
        self.inner_mut().debugger()
    }

    /// [`Vcpu::statistics`] of this layer.
    fn statistics_layer(&self) -> Option<Statistics> {
        self.inner().statistics()
    }
}

impl<L: Layer> Vcpu for L {
    fn index(&self) -> u32 {
        self.inner().index()
    }

    fn run(&mut self, entry: Entry) -> Result<Exit, Error> {
        self.run_layer(entry)
    }

    fn complete(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        self.complete_layer(entry)
    }

    fn regs(&mut self) -> Result<Regs, Error> {
        self.inner_mut().regs()
    }

    fn set_regs(&mut self, regs: &Regs) -> Result<(), Error> {
        self.inner_mut().set_regs(regs)
    }

    fn special_regs(&mut self) -> Result<SpecialRegs, Error> {
        self.inner_mut().special_regs()
    }

    fn set_special_regs(&mut self, regs: &SpecialRegs) -> Result<(), Error> {
        self.inner_mut().set_special_regs(regs)
    }

    fn fpu(&mut self) -> Result<Fpu, Error> {
        self.inner_mut().fpu()
    }

    fn set_fpu(&mut self, fpu: &Fpu) -> Result<(), Error> {
        self.inner_mut().set_fpu(fpu)
    }

    fn kicker(&self) -> Kicker {
        self.inner().kicker()
    }

    fn take_kick(&mut self) -> bool {
        self.inner_mut().take_kick()
    }

    fn kick_timer(&mut self) -> Result<Box<dyn KickTimer>, Error> {
        self.inner_mut().kick_timer()
    }

    fn kick_at_overflow(&mut self, counter: &dyn GuestCounter) -> Result<(), Error> {
        self.inner_mut().kick_at_overflow(counter)
    }

    fn inject_nmi(&mut self) -> Result<(), Error> {
        self.inner_mut().inject_nmi()
    }

    fn is_halted(&mut self) -> Result<bool, Error> {
        self.inner_mut().is_halted()
    }

    fn save(&mut self) -> Result<VcpuState, Error> {
        self.inner_mut().save()
    }

    fn restore(&mut self, state: &VcpuState) -> Result<(), Error> {
        self.inner_mut().restore(state)
    }

    fn restore_registers(&mut self, state: &VcpuState) -> Result<(), Error> {
        self.inner_mut().restore_registers(state)
    }

    fn tsc_khz(&self) -> Option<u32> {
        self.inner().tsc_khz()
    }

    fn count_in_kernel(&mut self) -> bool {
        self.inner_mut().count_in_kernel()
    }

    fn statistics(&self) -> Option<Statistics> {
        self.statistics_layer()
    }

    fn debug(&mut self) -> Option<&mut dyn DebugControl> {
        self.inner_mut().debug()
    }

    fn debugger(&mut self) -> Option<&mut dyn Debugger> {
        self.debugger_layer()
    }

    fn instruction_counter(&mut self) -> Option<&mut dyn InstructionCounter> {
        self.inner_mut().instruction_counter()
    }

    fn direct_interrupts(&mut self) -> Option<&mut dyn DirectInterrupts> {
        self.inner_mut().direct_interrupts()
    }
}
