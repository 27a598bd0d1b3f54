//! A vCPU.

mod access;
mod budget;
mod debug;
mod direct;
mod events;
mod leave;
mod state;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use nerite_arch::{CpuidEntry, Fpu, Msr, Regs, SpecialRegs};
use nerite_hypervisor::{
    DebugCause, DebugControl, DirectInterrupts, Entry, Error, Exit, GuestDebug, InstructionCounter,
    KickTimer, Kicker, Vcpu, VcpuStart, VcpuState,
};
use nerite_irqchip::{LocalApic, SharedChips, Time};
use nerite_memory::Pages;
use nerite_x86 as x86;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use self::budget::Budget;
use self::events::{Ready, SERVICE};
use self::leave::leave;
use crate::clock::{Source, TSC_KHZ, VcpuClock};
use crate::msr::{APIC_BASE, MachineMsrs};
use crate::shared::Shared;
use crate::signal::{Signal, Signals};

/// A vCPU whose processor is software.
pub(crate) struct SoftwareVcpu {
    index: u32,
    shared: Arc<Shared>,
    signal: Arc<Signal>,
    cpu: x86::Cpu,
    /// The CPUID leaves that the guest sees.
    cpuid: Vec<CpuidEntry>,
    clock: VcpuClock,
    /// Rate of the time-stamp counter.
    tsc_khz: NonZeroU32,
    /// CR8 as the local APIC has it.
    priority: u64,
    /// The guest executed HLT and waits.
    halted: bool,
    /// The processor waits for a start message.
    waits_for_sipi: bool,
    /// Instructions until the next look at interrupts and timers, as long as nothing but an access
    /// of a device comes between.
    left: u64,
    msrs: MachineMsrs,
    budget: Budget,
    debug: GuestDebug,
    /// The guest's own debug registers, while the debugger's are in their place.
    guest_debug: Option<x86::DebugRegs>,
}

/// Consequence of an exit of the processor.
enum Next {
    /// The processor resumes with this answer, after a look at interrupts and timers.
    Go(x86::Entry),
    /// It resumes; if there is something to look at, it has been woken.
    Resume,
    /// The caller has to handle it.
    Leave,
}

impl SoftwareVcpu {
    pub(crate) fn new(
        index: u32,
        shared: Arc<Shared>,
        signal: Arc<Signal>,
        start: VcpuStart<'_>,
        cpuid: &[CpuidEntry],
    ) -> Result<Self, Error> {
        let random = StdRng::from_rng(&mut *shared.random.lock());
        let clock = VcpuClock::new(shared.clock.clone());
        let cpu = x86::Cpu::new(x86::Config {
            memory: Box::new(Pages::new(&shared.ram)),
            platform: Box::new(Source::new(clock.clone(), random, shared.signals.is_single())),
            code: shared.code.clone(),
            cpuid: cpuid.to_vec(),
        });
        signal.set_cpu(cpu.kicker());
        if let Some(clock) = clock.of_instructions() {
            clock.idle.join();
        }
        let mut vcpu = Self {
            index,
            shared,
            signal,
            cpu,
            cpuid: cpuid.to_vec(),
            clock,
            tsc_khz: TSC_KHZ,
            priority: 0,
            halted: false,
            waits_for_sipi: false,
            left: 0,
            msrs: MachineMsrs::default(),
            budget: Budget::default(),
            debug: GuestDebug::default(),
            guest_debug: None,
        };
        // Of a processor that a start message has yet to start, too.
        if let Some(base) = vcpu.with_apic(|apic| apic.base()) {
            vcpu.cpu.set_apic_base(base);
        }
        match start {
            VcpuStart::At(state) => {
                vcpu.set_msrs(&state.msrs)?;
                vcpu.set_special_regs(&state.special)?;
                vcpu.set_regs(&state.regs)?;
            }
            VcpuStart::WaitForSipi(msrs) => {
                vcpu.set_msrs(msrs)?;
                vcpu.waits_for_sipi = true;
            }
        }
        Ok(vcpu)
    }

    fn set_msrs(&mut self, msrs: &[Msr]) -> Result<(), Error> {
        for (taken, msr) in msrs.iter().enumerate() {
            if !self.set_msr(msr) {
                return Err(Error::Partial {
                    index: self.index,
                    operation: "setting MSRs",
                    taken,
                    given: msrs.len(),
                    refused: format!("MSR {:#x}", msr.index),
                });
            }
        }
        Ok(())
    }

    fn set_msr(&mut self, msr: &Msr) -> bool {
        if msr.index == APIC_BASE {
            self.cpu.set_apic_base(msr.value);
            return self.with_apic(|apic| apic.set_base(msr.value)).is_none_or(|set| set.is_ok());
        }
        self.cpu.set_msr(*msr) || self.msrs.write(msr.index, msr.value)
    }

    fn chips(&self) -> Option<&Arc<SharedChips<Signals>>> {
        self.shared.chips.as_ref().map(|chips| &chips.shared)
    }

    fn time(&mut self) -> Time {
        Time { nanoseconds: self.now(), tsc: self.cpu.tsc() }
    }

    /// The VM's clock at this vCPU's next instruction.
    fn now(&self) -> u64 {
        self.clock.now(self.cpu.instructions())
    }

    /// Calls `act` with this vCPU's local APIC, if it has one here.
    fn with_apic<T>(&self, act: impl FnOnce(&mut LocalApic) -> T) -> Option<T> {
        self.chips()?.with_apic(self.index, act)
    }

    /// Handles the last exit of the processor.
    fn handle(&mut self) -> Next {
        use x86::Entry::Resume;
        match *self.cpu.exit() {
            x86::Exit::PortIn { port, width } => self.port_in(port, width),
            x86::Exit::PortOut { port, width, value } => self.port_out(port, width, value),
            x86::Exit::MmioRead { address, width } => self.mmio_read(address, width),
            x86::Exit::MmioWrite { address, width, value } => {
                self.mmio_write(address, width, value)
            }
            x86::Exit::MsrRead { index } => self.read_msr(index),
            x86::Exit::MsrWrite { index, value } => self.write_msr(index, value),
            x86::Exit::Halt if self.shared.chips.is_none() => Next::Leave,
            x86::Exit::Halt => {
                self.halted = true;
                Next::Go(Resume)
            }
            x86::Exit::Shutdown | x86::Exit::Debug { .. } => Next::Leave,
            x86::Exit::InterruptWindow | x86::Exit::PriorityLowered
                if self.shared.chips.is_none() =>
            {
                Next::Leave
            }
            x86::Exit::InterruptWindow => {
                self.cpu.request_interrupt_window(false);
                Next::Go(Resume)
            }
            _ => Next::Go(Resume),
        }
    }

    /// Executes up to `most` instructions, as far as the budget has room. Returns the number of
    /// those that were completed before an exit; `None` if the budget has no room for the moment.
    fn execute(&mut self, entry: &mut x86::Entry, most: u64) -> Option<u64> {
        let most = self.budget.begin(most)?;
        let before = self.cpu.instructions();
        self.cpu.advance(std::mem::take(entry), most);
        let executed = self.cpu.instructions().wrapping_sub(before);
        self.budget.end(most.saturating_sub(executed), self.cpu.has_pending_access());
        Some(executed)
    }

    /// `true` if a step of one instruction was asked for, and none is half done.
    fn has_stepped(&self) -> bool {
        self.debug.single_step && !self.cpu.has_pending_access()
    }
}

fn answer(entry: Entry) -> x86::Entry {
    match entry {
        Entry::Data(value) => x86::Entry::Data(value),
        Entry::Fault => x86::Entry::Fault,
        _ => x86::Entry::Resume,
    }
}

impl Vcpu for SoftwareVcpu {
    fn index(&self) -> u32 {
        self.index
    }

    fn run(&mut self, entry: Entry) -> Result<Exit, Error> {
        let mut entry = answer(entry);
        loop {
            // An instruction that is half done is finished first: nothing else may come before.
            // After an access of a device, the rest of the slice.
            let mut most = self.left.max(1);
            if !self.cpu.has_pending_access() {
                if self.signal.take_kick() {
                    return Ok(Exit::Kicked);
                }
                if self.budget.is_spent() {
                    return Ok(Exit::InstructionLimit { rip: self.cpu.regs().rip });
                }
                match self.prepare() {
                    Ready::Run(next) => most = self.slice(next),
                    Ready::Step => most = 1,
                    Ready::Wait(next) => {
                        if !self.signal.is_kicked() {
                            self.wait(next);
                        }
                        continue;
                    }
                }
            }
            if self.debug.single_step {
                most = 1;
            }
            let Some(executed) = self.execute(&mut entry, most) else { continue };
            let uses_time = executed != 0 || *self.cpu.exit() == x86::Exit::Budget;
            self.left = most.saturating_sub(executed);
            match self.handle() {
                Next::Go(_) | Next::Resume if uses_time && self.has_stepped() => {
                    let rip = self.cpu.regs().rip;
                    return Ok(Exit::Debug { rip, cause: DebugCause::STEP });
                }
                Next::Go(next) => {
                    self.left = 0;
                    entry = next;
                }
                Next::Resume => {}
                Next::Leave => {
                    self.left = self.left.saturating_sub(SERVICE);
                    if self.clock.of_instructions().is_some() {
                        // The handler of the exit may look at the clock.
                        self.now();
                    }
                    return Ok(leave(self.cpu.exit()));
                }
            }
        }
    }

    fn complete(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        let mut entry = answer(entry);
        self.left = 0;
        while self.cpu.has_pending_access() {
            if self.execute(&mut entry, 1).is_none() {
                continue;
            }
            match self.handle() {
                Next::Go(next) => entry = next,
                Next::Resume => {}
                Next::Leave => return Ok(Some(leave(self.cpu.exit()))),
            }
        }
        Ok(None)
    }

    fn regs(&mut self) -> Result<Regs, Error> {
        Ok(self.cpu.regs())
    }

    fn set_regs(&mut self, regs: &Regs) -> Result<(), Error> {
        self.cpu.set_regs(regs);
        Ok(())
    }

    fn special_regs(&mut self) -> Result<SpecialRegs, Error> {
        Ok(self.cpu.special_regs())
    }

    fn set_special_regs(&mut self, regs: &SpecialRegs) -> Result<(), Error> {
        self.cpu.set_special_regs(regs);
        // A base that the local APIC cannot have stays out of it.
        let _ = self.with_apic(|apic| apic.set_base(regs.apic_base));
        Ok(())
    }

    fn fpu(&mut self) -> Result<Fpu, Error> {
        Ok(self.cpu.fpu())
    }

    fn set_fpu(&mut self, fpu: &Fpu) -> Result<(), Error> {
        self.cpu.set_fpu(fpu);
        Ok(())
    }

    fn kicker(&self) -> Kicker {
        Kicker::new(self.signal.clone())
    }

    fn take_kick(&mut self) -> bool {
        self.signal.take_kick()
    }

    fn kick_timer(&mut self) -> Result<Box<dyn KickTimer>, Error> {
        let unsupported = Error::Unsupported { index: self.index, operation: "a timer that kicks" };
        let timers = self.shared.timers.as_ref().ok_or(unsupported)?;
        Ok(timers.kick_timer(self.signal.clone()))
    }

    fn inject_nmi(&mut self) -> Result<(), Error> {
        if !self.waits_for_sipi {
            self.halted = false;
            self.cpu.inject_nmi();
        }
        Ok(())
    }

    fn is_halted(&mut self) -> Result<bool, Error> {
        Ok(self.halted)
    }

    fn save(&mut self) -> Result<VcpuState, Error> {
        self.save_state().map_err(state::failed(self.index))
    }

    fn restore(&mut self, state: &VcpuState) -> Result<(), Error> {
        self.restore_state(state).map_err(state::failed(self.index))
    }

    fn tsc_khz(&self) -> Option<u32> {
        Some(self.tsc_khz.get())
    }

    fn debug(&mut self) -> Option<&mut dyn DebugControl> {
        Some(self)
    }

    fn instruction_counter(&mut self) -> Option<&mut dyn InstructionCounter> {
        Some(self)
    }

    fn direct_interrupts(&mut self) -> Option<&mut dyn DirectInterrupts> {
        if self.shared.chips.is_none() { Some(self) } else { None }
    }
}

impl Drop for SoftwareVcpu {
    fn drop(&mut self) {
        if let Some(clock) = self.clock.of_instructions() {
            clock.idle.leave(&self.shared.signals);
        }
    }
}

impl fmt::Debug for SoftwareVcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareVcpu")
            .field("index", &self.index)
            .field("cpu", &self.cpu)
            .finish_non_exhaustive()
    }
}
