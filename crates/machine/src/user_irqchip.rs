//! Interrupts without the host kernel's controllers: a local APIC for each vCPU, and a layer around
//! the vCPU that injects what it has, lets the guest's HLT rest, and answers the guest's accesses
//! of the APIC.

use std::sync::Arc;
use std::time::Duration;

use nerite_arch::reset;
use nerite_arch::{Fpu, Regs, SpecialRegs};
use nerite_hypervisor::{Activity, GuestCounter};
use nerite_irqchip::{Deadline, Delivery, Effect, LocalApic, LocalApics as _, X2APIC_MSRS};
use nerite_vcpu::{
    DebugCause, DebugControl, DirectInterrupts, Entry, Error, Exit, GuestDebug, HaltWait,
    KickTimer, Kicker, Statistics, Vcpu,
};

mod local_apics;

pub(crate) use local_apics::LocalApics;

/// Size of the page of a local APIC's registers.
const PAGE: u64 = 4096;

/// The time at which a timer expires, in nanoseconds.
fn timer(apic: &LocalApic) -> Option<u64> {
    match apic.next_event()? {
        Deadline::Nanoseconds(at) => Some(at),
        // There is no such mode here.
        Deadline::Tsc(_) => None,
    }
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
    /// `true` if the next entry delivers an NMI, which goes before interrupts (Intel SDM vol. 3,
    /// 6.9).
    delivers_nmi: bool,
    /// `true` if it is executed one instruction at a time.
    is_stepped: bool,
    /// Number of injected interrupts, the non-maskable ones among them, and number of halts.
    interrupts: u64,
    nmis: u64,
    halts: u64,
}

impl UserInterrupts {
    pub(crate) fn new(inner: Box<dyn Vcpu>, chips: Arc<LocalApics>) -> Self {
        Self {
            inner,
            chips,
            activity: Activity::Runnable,
            timer: None,
            kick_timer: None,
            delivers_nmi: false,
            is_stepped: false,
            interrupts: 0,
            nmis: 0,
            halts: 0,
        }
    }

    /// Calls `act` with the local APIC of this vCPU.
    fn with<T>(&self, act: impl FnOnce(&mut LocalApic) -> T) -> Option<T> {
        (&*self.chips).with(self.inner.index(), act)
    }

    /// Takes what has come: the timer's time, a reset, a start, an NMI.
    fn take_events(&mut self) -> Result<(), Error> {
        let now = self.chips.now();
        let taken = self.with(|apic| {
            apic.advance(now);
            apic.take_events()
        });
        let events = taken.unwrap_or_default();
        if events.init {
            let base = self.direct()?.interrupt_state().apic_base;
            self.inner.set_regs(&reset::regs())?;
            self.inner.set_special_regs(&reset::special_regs(base))?;
            self.activity = Activity::WaitForSipi;
        }
        if let (Some(page), Activity::WaitForSipi) = (events.startup, self.activity) {
            let mut special = self.inner.special_regs()?;
            reset::start_at(&mut special, page);
            self.inner.set_special_regs(&special)?;
            self.inner.set_regs(&Regs { rip: 0, ..reset::regs() })?;
            self.activity = Activity::Runnable;
        }
        if self.activity != Activity::WaitForSipi {
            for _ in 0..events.nmis {
                self.inner.inject_nmi()?;
                self.nmis = self.nmis.wrapping_add(1);
                self.delivers_nmi = true;
                self.activity = Activity::Runnable;
            }
        }
        Ok(())
    }

    /// Waits while the vCPU does nothing. Returns false if something is wanted of it.
    fn rest(&mut self) -> Result<bool, Error> {
        loop {
            self.take_events()?;
            let enabled = self.direct()?.interrupt_state().enabled;
            let halted = match self.activity {
                Activity::Runnable => return Ok(true),
                Activity::Halted => true,
                Activity::WaitForSipi => false,
            };
            if halted && enabled && self.with(|apic| apic.pending()).flatten().is_some() {
                self.activity = Activity::Runnable;
                return Ok(true);
            }
            let Some(processor) = self.chips.processor(self.inner.index()) else { return Ok(true) };
            let timer = timer(&processor.apic.lock()).filter(|_| halted);
            let until = timer.and_then(|at| self.chips.start.checked_add(Duration::from_nanos(at)));
            let rested = processor.control.wait_for_interrupt(until, || {
                let apic = processor.apic.lock();
                let (events, interrupt) =
                    (apic.events(), halted && enabled && apic.pending().is_some());
                events.init
                    || events.nmis > 0 && halted
                    || events.startup.is_some() && !halted
                    || interrupt
            });
            if rested == HaltWait::Request {
                return Ok(false);
            }
        }
    }

    /// Injects the next interrupt, or asks to be told when that can be.
    fn inject(&mut self) -> Result<(), Error> {
        let state = self.direct()?.interrupt_state();
        let accepts = state.accepts && !std::mem::take(&mut self.delivers_nmi);
        let wanted = self.with(|apic| {
            let vector = accepts.then(|| apic.acknowledge()).flatten();
            (vector, apic.pending().is_some(), apic.priority_class(), timer(apic))
        });
        let (vector, more, class, timer) = wanted.unwrap_or_default();
        if let Some(vector) = vector {
            self.direct()?.inject_interrupt(vector)?;
            self.interrupts = self.interrupts.wrapping_add(1);
        }
        self.direct()?.request_interrupt_window(more);
        if class != state.priority_class {
            self.direct()?.set_priority_class(class);
        }
        if timer != self.timer {
            let delay = timer
                .map(|at| Duration::from_nanos(at.saturating_sub(self.chips.now().nanoseconds)));
            self.set_timer(delay)?;
            self.timer = timer;
        }
        Ok(())
    }

    /// The vCPU within, as one that takes interrupts from here.
    fn direct(&mut self) -> Result<&mut dyn DirectInterrupts, Error> {
        let unsupported =
            Error::Unsupported { index: self.inner.index(), operation: "injecting interrupts" };
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

    /// Takes over what the guest did to CR8 and, after the hypervisor's check, to `IA32_APIC_BASE`.
    fn note_state(&mut self) -> Result<(), Error> {
        let state = self.direct()?.interrupt_state();
        self.with(|apic| {
            if apic.base() != state.apic_base && apic.set_base(state.apic_base).is_err() {
                log::debug!("the APIC base {:#x} is not one", state.apic_base);
            }
            apic.set_priority_class(state.priority_class);
        });
        Ok(())
    }

    /// The answer to an access of the APIC; `None` if the exit is another.
    fn answer(&mut self, exit: &Exit) -> Option<Entry> {
        let now = self.chips.now();
        let offset = |apic: &LocalApic, address: u64| {
            address.checked_sub(apic.mmio_base()?).filter(|offset| *offset < PAGE)
        };
        let (entry, effect) = match *exit {
            Exit::MsrRead { index } if X2APIC_MSRS.contains(&index) => {
                let read = self.with(|apic| apic.read_msr(index, now).ok()).flatten();
                (read.map_or(Entry::Fault, Entry::Data), None)
            }
            Exit::MsrWrite { index, value } if X2APIC_MSRS.contains(&index) => {
                match self.with(|apic| apic.write_msr(index, value, now)) {
                    Some(Ok(effect)) => (Entry::Resume, effect),
                    _ => (Entry::Fault, None),
                }
            }
            Exit::MmioRead { address, width } => {
                let read =
                    |apic: &mut LocalApic| Some(apic.read_mmio(offset(apic, address)?, width, now));
                (Entry::Data(self.with(read)??.into()), None)
            }
            Exit::MmioWrite { address, width, value } => {
                let value = u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0);
                let write = |apic: &mut LocalApic| {
                    Some(apic.write_mmio(offset(apic, address)?, width, value, now))
                };
                (Entry::Resume, self.with(write)??)
            }
            _ => return None,
        };
        // No I/O APIC waits for the ends of interrupts.
        if let Some(Effect::Send(message)) = effect {
            self.chips.deliver(&message);
        }
        Some(entry)
    }

    /// Ends a step of one instruction after an access that was handled here.
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
            if self.activity != Activity::Runnable && !self.rest()? {
                return Ok(Exit::Kicked);
            }
            self.take_events()?;
            if self.activity != Activity::Runnable {
                continue;
            }
            self.inject()?;
            let exit = self.inner.run(std::mem::take(&mut entry))?;
            self.note_state()?;
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
        self.note_state()?;
        Ok(())
    }

    fn kicker(&self) -> Kicker {
        self.inner.kicker()
    }

    fn take_kick(&mut self) -> bool {
        self.inner.take_kick()
    }

    fn inject_nmi(&mut self) -> Result<(), Error> {
        self.with(|apic| apic.accept(Delivery::Nmi, false));
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
