//! Wrapping a vCPU to watch or change its steps.

use nerite_arch::{Fpu, Regs, SpecialRegs};

use crate::{DebugPlan, DebugStop, EngineDebug, Entry, Error, Exit, Kicker, Statistics, Vcpu};

/// Something around a vCPU that takes part in its steps and leaves everything else to it. Each layer is a [`Vcpu`] itself.
pub trait Layer {
    /// The vCPU within.
    type Inner: Vcpu;

    /// The vCPU within.
    fn inner(&self) -> &Self::Inner;

    /// The vCPU within.
    fn inner_mut(&mut self) -> &mut Self::Inner;

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

    /// [`Vcpu::set_debug_plan`] of this layer.
    ///
    /// # Errors
    /// As [`Vcpu::set_debug_plan`].
    fn set_plan_layer(&mut self, plan: &DebugPlan) -> Result<(), Error> {
        self.inner_mut().set_debug_plan(plan)
    }

    /// [`Vcpu::take_debug_stop`] of this layer.
    fn take_stop_layer(&mut self) -> Option<DebugStop> {
        self.inner_mut().take_debug_stop()
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

    fn kicker(&self) -> Kicker {
        self.inner().kicker()
    }

    fn take_kick(&mut self) -> bool {
        self.inner_mut().take_kick()
    }

    fn inject_nmi(&mut self) -> Result<(), Error> {
        self.inner_mut().inject_nmi()
    }

    fn is_halted(&mut self) -> Result<bool, Error> {
        self.inner_mut().is_halted()
    }

    fn set_engine_debug(&mut self, debug: &EngineDebug) -> Result<(), Error> {
        self.inner_mut().set_engine_debug(debug)
    }

    fn set_debug_plan(&mut self, plan: &DebugPlan) -> Result<(), Error> {
        self.set_plan_layer(plan)
    }

    fn take_debug_stop(&mut self) -> Option<DebugStop> {
        self.take_stop_layer()
    }

    fn fpu(&mut self) -> Result<Fpu, Error> {
        self.inner_mut().fpu()
    }

    fn set_fpu(&mut self, fpu: &Fpu) -> Result<(), Error> {
        self.inner_mut().set_fpu(fpu)
    }

    fn statistics(&self) -> Option<Statistics> {
        self.statistics_layer()
    }
}
