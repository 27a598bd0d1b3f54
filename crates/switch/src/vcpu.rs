//! A vCPU of each hypervisor.

use std::sync::Arc;

use nerite_arch::{Fpu, Regs, SpecialRegs};
use nerite_hypervisor::{
    DebugControl, Entry, Error, Exit, GuestDebug, InstructionCounter, KickTimer, Kicker,
    Statistics, Vcpu, VcpuState,
};

use crate::kick::{Kicks, Timers};
use crate::pair::Pair;
use crate::switch::Switch;

/// A vCPU of each hypervisor, of which one has the guest. All calls reach that one: a state that is
/// saved before a hand-over and restored after it moves.
#[derive(Debug)]
pub(crate) struct SwitchedVcpu {
    vcpus: Pair<Box<dyn Vcpu>>,
    switch: Arc<Switch>,
    /// Debugging that was set last, and moves, too.
    debug: GuestDebug,
}

impl SwitchedVcpu {
    pub(crate) fn new(vcpus: Pair<Box<dyn Vcpu>>, switch: Arc<Switch>) -> Self {
        Self { vcpus, switch, debug: GuestDebug::default() }
    }

    fn active_mut(&mut self) -> &mut dyn Vcpu {
        &mut **self.vcpus.get_mut(self.switch.active())
    }

    fn apply_debug(&mut self) -> Result<(), Error> {
        let (index, wanted) = (self.index(), self.debug);
        match self.active_mut().debug() {
            Some(debug) => debug.set_guest_debug(&wanted),
            None if wanted == GuestDebug::default() => Ok(()),
            None => Err(Error::Unsupported { index, operation: "debugging" }),
        }
    }
}

impl Vcpu for SwitchedVcpu {
    fn index(&self) -> u32 {
        self.vcpus.first.index()
    }

    fn run(&mut self, entry: Entry) -> Result<Exit, Error> {
        self.active_mut().run(entry)
    }

    fn complete(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        self.active_mut().complete(entry)
    }

    fn regs(&mut self) -> Result<Regs, Error> {
        self.active_mut().regs()
    }

    fn set_regs(&mut self, regs: &Regs) -> Result<(), Error> {
        self.active_mut().set_regs(regs)
    }

    fn special_regs(&mut self) -> Result<SpecialRegs, Error> {
        self.active_mut().special_regs()
    }

    fn set_special_regs(&mut self, regs: &SpecialRegs) -> Result<(), Error> {
        self.active_mut().set_special_regs(regs)
    }

    fn fpu(&mut self) -> Result<Fpu, Error> {
        self.active_mut().fpu()
    }

    fn set_fpu(&mut self, fpu: &Fpu) -> Result<(), Error> {
        self.active_mut().set_fpu(fpu)
    }

    fn kicker(&self) -> Kicker {
        let kickers = Pair { first: self.vcpus.first.kicker(), second: self.vcpus.second.kicker() };
        Kicker::new(Arc::new(Kicks { kickers, switch: self.switch.clone() }))
    }

    fn take_kick(&mut self) -> bool {
        self.active_mut().take_kick()
    }

    fn kick_timer(&mut self) -> Result<Box<dyn KickTimer>, Error> {
        let first = self.vcpus.first.kick_timer()?;
        Ok(Box::new(Timers(Pair { first, second: self.vcpus.second.kick_timer()? })))
    }

    fn inject_nmi(&mut self) -> Result<(), Error> {
        self.active_mut().inject_nmi()
    }

    fn is_halted(&mut self) -> Result<bool, Error> {
        self.active_mut().is_halted()
    }

    fn save(&mut self) -> Result<VcpuState, Error> {
        self.active_mut().save()
    }

    fn restore(&mut self, state: &VcpuState) -> Result<(), Error> {
        self.active_mut().restore(state)?;
        self.apply_debug()
    }

    fn restore_registers(&mut self, state: &VcpuState) -> Result<(), Error> {
        self.active_mut().restore_registers(state)
    }

    fn tsc_khz(&self) -> Option<u32> {
        self.vcpus.first.tsc_khz()
    }

    fn count_in_kernel(&mut self) -> bool {
        let first = self.vcpus.first.count_in_kernel();
        self.vcpus.second.count_in_kernel() || first
    }

    fn statistics(&self) -> Option<Statistics> {
        let mut both = self.vcpus.iter().filter_map(|vcpu| vcpu.statistics());
        let mut sum = both.next()?;
        both.for_each(|other| sum.merge(&other));
        Some(sum)
    }

    /// Counts on the hypervisor that can. On the other one, nothing is counted.
    fn instruction_counter(&mut self) -> Option<&mut dyn InstructionCounter> {
        let Pair { first, second } = &mut self.vcpus;
        second.instruction_counter().or_else(|| first.instruction_counter())
    }

    fn debug(&mut self) -> Option<&mut dyn DebugControl> {
        self.active_mut().debug()?;
        Some(self)
    }
}

impl DebugControl for SwitchedVcpu {
    fn set_guest_debug(&mut self, debug: &GuestDebug) -> Result<(), Error> {
        self.debug = *debug;
        self.apply_debug()
    }
}
