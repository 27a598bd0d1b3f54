//! Interrupts without the host kernel's controllers: a local APIC for each vCPU, and a layer around the vCPU that injects what it
//! has, lets the guest's HLT rest, and answers the guest's accesses of the APIC.

use std::sync::Arc;
use std::time::Duration;

use nerite_arch::reset;
use nerite_arch::{Fpu, Regs, SpecialRegs};
use nerite_devices::apic::{LocalApic, X2APIC_MSRS};
use nerite_hypervisor::GuestCounter;
use nerite_vcpu::{
    DebugCause, DebugControl, DirectInterrupts, Entry, Error, Exit, GuestDebug, HaltWait, KickTimer, Kicker,
    Statistics, Vcpu,
};

mod local_apics;

pub(crate) use local_apics::LocalApics;
use local_apics::Waiting;

/// `IA32_APIC_BASE`: the address of the xAPIC's registers, and x2APIC mode.
const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const X2APIC_MODE: u64 = 1 << 10;
const PAGE: u64 = 4096;

/// What a vCPU does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    Running,
    Halted,
    /// After INIT (Intel SDM vol. 3, 10.4.4.1).
    WaitsForStartup,
}

/// A vCPU whose interrupts come from [`LocalApics`].
#[derive(Debug)]
pub(crate) struct UserInterrupts {
    inner: Box<dyn Vcpu>,
    chips: Arc<LocalApics>,
    activity: Activity,
    /// When it is kicked for the guest's timer.
    timer: Option<u64>,
    kick_timer: Option<Box<dyn KickTimer>>,
    /// `true` if it is executed one instruction at a time.
    is_stepped: bool,
    /// How many interrupts were injected, and how many of them non-maskable; how often it halted.
    interrupts: u64,
    nmis: u64,
    halts: u64,
}

impl UserInterrupts {
    pub(crate) fn new(inner: Box<dyn Vcpu>, chips: Arc<LocalApics>) -> Self {
        Self {
            inner,
            chips,
            activity: Activity::Running,
            timer: None,
            kick_timer: None,
            is_stepped: false,
            interrupts: 0,
            nmis: 0,
            halts: 0,
        }
    }

    /// Does something with what waits for this vCPU.
    fn with<T>(&self, act: impl FnOnce(&mut Waiting) -> T) -> Option<T> {
        let index = usize::try_from(self.inner.index()).ok()?;
        self.chips.processors.get(index).map(|processor| act(&mut processor.waiting.lock()))
    }

    /// Takes what has come: the timer's time, a reset, a start, an NMI.
    fn take_events(&mut self) -> Result<(), Error> {
        let now = self.chips.now();
        let taken = self.with(|waiting| {
            waiting.apic.advance(now);
            let init = std::mem::take(&mut waiting.init);
            if init {
                waiting.apic = LocalApic::new(waiting.apic.id());
            }
            (init, waiting.startup.take(), std::mem::take(&mut waiting.nmi))
        });
        let (init, startup, nmi) = taken.unwrap_or_default();
        if init {
            let base = self.direct()?.interrupt_state().apic_base;
            self.inner.set_regs(&reset::regs())?;
            self.inner.set_special_regs(&reset::special_regs(base))?;
            self.activity = Activity::WaitsForStartup;
        }
        if let (Some(page), Activity::WaitsForStartup) = (startup, self.activity) {
            let mut special = self.inner.special_regs()?;
            reset::start_at(&mut special, page);
            self.inner.set_special_regs(&special)?;
            self.inner.set_regs(&Regs { rip: 0, ..reset::regs() })?;
            self.activity = Activity::Running;
        }
        if nmi && self.activity != Activity::WaitsForStartup {
            self.inner.inject_nmi()?;
            self.nmis = self.nmis.wrapping_add(1);
            self.activity = Activity::Running;
        }
        Ok(())
    }

    /// Waits while the vCPU does nothing. Returns false if something is wanted of it.
    fn rest(&mut self) -> Result<bool, Error> {
        loop {
            self.take_events()?;
            let enabled = self.direct()?.interrupt_state().enabled;
            let halted = match self.activity {
                Activity::Running => return Ok(true),
                Activity::Halted => true,
                Activity::WaitsForStartup => false,
            };
            if halted && enabled && self.with(|waiting| waiting.apic.pending()).flatten().is_some() {
                self.activity = Activity::Running;
                return Ok(true);
            }
            let index = usize::try_from(self.inner.index()).unwrap_or(usize::MAX);
            let Some(processor) = self.chips.processors.get(index) else { return Ok(true) };
            let timer = processor.waiting.lock().apic.deadline().filter(|_| halted);
            let until = timer.and_then(|at| self.chips.start.checked_add(Duration::from_nanos(at)));
            let rested = processor.control.wait_for_interrupt(until, || {
                let waiting = processor.waiting.lock();
                let interrupt = halted && enabled && waiting.apic.pending().is_some();
                waiting.init || waiting.nmi && halted || waiting.startup.is_some() && !halted || interrupt
            });
            if rested == HaltWait::Request {
                return Ok(false);
            }
        }
    }

    /// Injects the next interrupt, or asks to be told when that can be.
    fn inject(&mut self) -> Result<(), Error> {
        let state = self.direct()?.interrupt_state();
        let wanted = self.with(|waiting| {
            let pending = waiting.apic.pending();
            if let Some(vector) = pending.filter(|_| state.accepts) {
                waiting.apic.begin(vector);
            }
            (
                pending,
                waiting.apic.pending().is_some(),
                waiting.apic.priority_class(),
                waiting.apic.deadline(),
            )
        });
        let (pending, more, class, timer) = wanted.unwrap_or_default();
        if let Some(vector) = pending.filter(|_| state.accepts) {
            self.direct()?.inject_interrupt(vector)?;
            self.interrupts = self.interrupts.wrapping_add(1);
        }
        self.direct()?.request_interrupt_window(more);
        if class != state.priority_class {
            self.direct()?.set_priority_class(class);
        }
        if timer != self.timer {
            let delay = timer.map(|at| Duration::from_nanos(at.saturating_sub(self.chips.now())));
            self.set_timer(delay)?;
            self.timer = timer;
        }
        Ok(())
    }

    /// The vCPU within, as one that takes interrupts from here.
    fn direct(&mut self) -> Result<&mut dyn DirectInterrupts, Error> {
        let unsupported = Error::Unsupported { index: self.inner.index(), operation: "injecting interrupts" };
        self.inner.direct_interrupts().ok_or(unsupported)
    }

    /// Kicks the vCPU after `delay`, in place of the time that was set before; `None`: not at all.
    fn set_timer(&mut self, delay: Option<Duration>) -> Result<(), Error> {
        let index = self.inner.index();
        let timer = match (self.kick_timer.take(), delay) {
            (Some(timer), _) => timer,
            (None, Some(_)) => self.inner.kick_timer()?,
            (None, None) => return Ok(()),
        };
        let set = delay.map_or_else(|| timer.stop(), |delay| timer.set(delay, Duration::ZERO));
        self.kick_timer = Some(timer);
        set.map_err(|source| Error::Vcpu { index, operation: "setting a timer", source })
    }

    /// Takes over what the guest did to CR8.
    fn note_priority(&mut self) -> Result<(), Error> {
        let class = self.direct()?.interrupt_state().priority_class;
        self.with(|waiting| waiting.apic.set_priority_class(class));
        Ok(())
    }

    /// The answer to an access of the APIC; `None` if the exit is another.
    fn answer(&mut self, exit: &Exit) -> Option<Entry> {
        let (now, id) = (self.chips.now(), self.inner.index());
        let base = self.inner.direct_interrupts()?.interrupt_state().apic_base;
        let offset = |address: u64| address.checked_sub(base & BASE_ADDRESS).filter(|offset| *offset < PAGE);
        let (entry, message) = match *exit {
            Exit::MsrRead { index } if X2APIC_MSRS.contains(&index) => {
                let read = (base & X2APIC_MODE != 0).then(|| self.with(|w| w.apic.read_msr(index, now)));
                (read.flatten().map_or(Entry::Fault, |read| read.map_or(Entry::Fault, Entry::Data)), None)
            }
            Exit::MsrWrite { index, value } if X2APIC_MSRS.contains(&index) => {
                let written =
                    (base & X2APIC_MODE != 0).then(|| self.with(|w| w.apic.write_msr(index, value, now)));
                match written.flatten() {
                    Some(Ok(message)) => (Entry::Resume, message),
                    _ => (Entry::Fault, None),
                }
            }
            Exit::MmioRead { address, .. } => {
                let read = self.with(|w| offset(address).map(|at| w.apic.read_page(at, now)))?;
                (Entry::Data(read?.into()), None)
            }
            Exit::MmioWrite { address, value, .. } => {
                let offset = offset(address)?;
                let value = u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0);
                (Entry::Resume, self.with(|w| w.apic.write_page(offset, value, now))?)
            }
            _ => return None,
        };
        if let Some(message) = message {
            self.chips.deliver(message, id);
        }
        Some(entry)
    }

    /// What a step of one instruction ends with, after an access that nobody else has seen.
    fn stepped(&mut self, mut entry: Entry) -> Result<Exit, Error> {
        while let Some(exit) = self.inner.complete(entry)? {
            match self.answer(&exit) {
                Some(next) => entry = next,
                None => return Ok(exit),
            }
        }
        let rip = self.inner.regs()?.rip;
        Ok(Exit::Debug { rip, cause: DebugCause::STEP })
    }
}

impl Vcpu for UserInterrupts {
    fn index(&self) -> u32 {
        self.inner.index()
    }

    fn run(&mut self, mut entry: Entry) -> Result<Exit, Error> {
        loop {
            if self.activity != Activity::Running && !self.rest()? {
                return Ok(Exit::Kicked);
            }
            self.take_events()?;
            if self.activity != Activity::Running {
                continue;
            }
            self.inject()?;
            let exit = self.inner.run(std::mem::take(&mut entry))?;
            self.note_priority()?;
            match exit {
                Exit::InterruptWindow | Exit::TprBelowThreshold => {}
                Exit::Halt => {
                    self.halts = self.halts.wrapping_add(1);
                    self.activity = Activity::Halted;
                }
                exit => match self.answer(&exit) {
                    Some(next) if self.is_stepped => return self.stepped(next),
                    Some(next) => entry = next,
                    None => return Ok(exit),
                },
            }
        }
    }

    fn complete(&mut self, mut entry: Entry) -> Result<Option<Exit>, Error> {
        loop {
            let Some(exit) = self.inner.complete(entry)? else { return Ok(None) };
            match self.answer(&exit) {
                Some(next) => entry = next,
                None => return Ok(Some(exit)),
            }
        }
    }

    fn regs(&mut self) -> Result<Regs, Error> {
        self.inner.regs()
    }

    fn set_regs(&mut self, regs: &Regs) -> Result<(), Error> {
        self.inner.set_regs(regs)
    }

    fn special_regs(&mut self) -> Result<SpecialRegs, Error> {
        self.inner.special_regs()
    }

    fn set_special_regs(&mut self, regs: &SpecialRegs) -> Result<(), Error> {
        self.inner.set_special_regs(regs)?;
        self.note_priority()?;
        Ok(())
    }

    fn kicker(&self) -> Kicker {
        self.inner.kicker()
    }

    fn take_kick(&mut self) -> bool {
        self.inner.take_kick()
    }

    fn inject_nmi(&mut self) -> Result<(), Error> {
        self.with(|waiting| waiting.nmi = true);
        Ok(())
    }

    fn is_halted(&mut self) -> Result<bool, Error> {
        Ok(self.activity == Activity::Halted)
    }

    fn kick_timer(&mut self) -> Result<Box<dyn KickTimer>, Error> {
        self.inner.kick_timer()
    }

    fn kick_at_overflow(&mut self, counter: &dyn GuestCounter) -> Result<(), Error> {
        self.inner.kick_at_overflow(counter)
    }

    fn tsc_khz(&self) -> Option<u32> {
        self.inner.tsc_khz()
    }

    fn count_in_kernel(&mut self) -> bool {
        self.inner.count_in_kernel()
    }

    fn debug(&mut self) -> Option<&mut dyn DebugControl> {
        self.inner.debug().is_some().then_some(self as &mut dyn DebugControl)
    }

    fn fpu(&mut self) -> Result<Fpu, Error> {
        self.inner.fpu()
    }

    fn set_fpu(&mut self, fpu: &Fpu) -> Result<(), Error> {
        self.inner.set_fpu(fpu)
    }

    fn statistics(&self) -> Option<Statistics> {
        let mut statistics = self.inner.statistics().unwrap_or_default();
        if let Some(counts) = &mut statistics.in_kernel {
            // The kernel counts what it injects, not what is injected through it.
            counts.interrupts = self.interrupts;
            counts.nmis = self.nmis;
            counts.halts = self.halts;
        }
        Some(statistics)
    }
}

impl DebugControl for UserInterrupts {
    fn set_guest_debug(&mut self, debug: &GuestDebug) -> Result<(), Error> {
        self.is_stepped = debug.single_step;
        let unsupported = Error::Unsupported { index: self.inner.index(), operation: "debugging" };
        self.inner.debug().ok_or(unsupported)?.set_guest_debug(debug)
    }
}

#[cfg(test)]
#[path = "user_irqchip_test.rs"]
mod tests;
