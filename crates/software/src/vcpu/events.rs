//! Interrupts and timers, and waiting for them.

use nerite_irqchip::{Deadline, Delivery, Events};

use super::SoftwareVcpu;

/// Instructions between two looks at the clock, some 100 us: so late can a timer's interrupt be.
const SLICE: u64 = 16_384;
/// The part of a slice that an exit to a device's handler stands for: it takes time, and not that
/// of many may pass between two looks at the clock.
pub(super) const SERVICE: u64 = SLICE / 16;

/// A processor that executes instructions or waits, until the next event of a timer, which is in
/// nanoseconds of the VM's clock.
pub(super) enum Ready {
    Run(Option<u64>),
    /// Runs for one instruction, and is looked at again.
    Step,
    Wait(Option<u64>),
}

impl SoftwareVcpu {
    /// Brings timer, messages and interrupts to the processor.
    pub(super) fn prepare(&mut self) -> Ready {
        self.signal.looked();
        let Some(chips) = self.chips().cloned() else { return Ready::Run(None) };
        let time = self.time();
        if let Some(clock) = self.clock.of_instructions() {
            // The timers' thread knows the host's time only.
            if chips.next_board_event().is_some_and(|event| event <= time.nanoseconds) {
                chips.advance_board(time.nanoseconds);
            }
            clock.idle.wake_due(time.nanoseconds, &self.shared.signals);
        }
        let priority = self.cpu.cr8();
        let written = (priority != self.priority).then_some(u8::try_from(priority).unwrap_or(0));
        self.priority = priority;
        let looked = chips.with_apic(self.index, |apic| {
            if let Some(class) = written {
                apic.set_priority_class(class);
            }
            apic.advance(time);
            (apic.has_events().then(|| apic.take_events()), apic.next_event())
        });
        let Some((events, next)) = looked else { return Ready::Run(None) };
        let nmi_waits = events.is_some_and(|events| self.take(events));
        if !self.waits_for_sipi && !self.debug.block_interrupts && chips.has_interrupt(self.index) {
            if self.cpu.can_interrupt() {
                if let Some(vector) = chips.acknowledge(self.index) {
                    self.halted = false;
                    self.cpu.inject_interrupt(vector);
                }
            } else if !self.halted {
                self.cpu.request_interrupt_window(true);
            }
        }
        let at = |deadline: Deadline| {
            time.nanoseconds.saturating_add(deadline.delay(time, self.tsc_khz))
        };
        let own = next.map(at);
        let is_waiting = self.halted || self.waits_for_sipi;
        let next = match self.clock.of_instructions() {
            None => own,
            Some(_) if is_waiting => earlier(own, chips.next_board_event()),
            Some(clock) => earlier(earlier(own, chips.next_board_event()), clock.idle.first()),
        };
        if is_waiting {
            return Ready::Wait(next);
        }
        if nmi_waits { Ready::Step } else { Ready::Run(next) }
    }

    /// Takes the events of the local APIC. Returns `true` if an NMI waits there for the delivery of
    /// the one before it.
    pub(super) fn take(&mut self, events: Events) -> bool {
        if events.init {
            self.cpu.init();
            self.halted = false;
            self.waits_for_sipi = true;
        }
        if let Some(page) = events.startup.filter(|_| self.waits_for_sipi) {
            self.cpu.start(page);
            self.waits_for_sipi = false;
        }
        if events.nmis == 0 || self.waits_for_sipi {
            return false;
        }
        self.halted = false;
        // One can be pending, and another one before it if none is being handled.
        let processor = self.cpu.events();
        let pending = u8::from(processor.nmi);
        let most = if processor.nmi_blocked { 1 } else { 2 };
        let is_second = events.nmis.saturating_add(pending).min(most) == 2;
        self.cpu.inject_nmi();
        if is_second {
            self.with_apic(|apic| apic.accept(Delivery::Nmi, false));
        }
        is_second
    }

    /// Waits until this vCPU is woken, or until the next event of a timer.
    pub(super) fn wait(&self, next: Option<u64>) {
        match self.clock.of_instructions() {
            Some(clock) => clock.idle.wait(self.index, next, clock, &self.shared.signals),
            None => self.signal.wait(next.and_then(|next| self.shared.clock.moment(next))),
        }
    }

    /// Number of instructions until the next look at interrupts. With a virtual clock it ends
    /// exactly at the next event of a timer, so that each run is the same.
    pub(super) fn slice(&self, next: Option<u64>) -> u64 {
        match next.filter(|_| self.clock.of_instructions().is_some()) {
            Some(next) => next.saturating_sub(self.now()).clamp(1, SLICE),
            None => SLICE,
        }
    }
}

fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    [one, other].into_iter().flatten().min()
}
