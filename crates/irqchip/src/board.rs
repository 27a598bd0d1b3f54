//! The chips of a PC that all processors share, and the lines to them.

mod lines;
mod saved;

pub use lines::{GSIS, LineSource, Routes};
pub use saved::{BOARD_VERSION, SavedBoard};

use lines::{Lines, Route};

use crate::apic::{Effect, LocalApic, Pin};
use crate::delivery::{LocalApics, deliver};
use crate::ioapic::{IoApic, IoApicVersion, Pins};
use crate::message::{Delivery, Message};
use crate::pic::{PIC_PORTS, PicPair};
use crate::pit::{PIT_PORTS, Pit};

/// The global system interrupt of the timer.
const TIMER_GSI: u8 = 0;

/// I/O APIC, 8259 pair and 8254 of a machine, without the local APICs.
///
/// Each call that can interrupt a processor gets the local APICs that its messages go to. The 8259
/// pair's output is their pin LINT0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    ioapic: IoApic,
    pics: PicPair,
    pit: Pit,
    lines: Lines,
    /// The 8259 pair's output, as LINT0 of the local APICs has it.
    output: bool,
}

impl Board {
    /// The chips after power-up, with lines that go to them as `routes` says.
    #[must_use]
    pub const fn new(version: IoApicVersion, routes: Routes) -> Self {
        Self {
            ioapic: IoApic::new(version),
            pics: PicPair::new(),
            pit: Pit::new(),
            lines: Lines::new(routes),
            output: false,
        }
    }

    /// Asserts or de-asserts a line for one of the devices that share it: it is asserted while one
    /// of them asserts it. A line that does not exist is ignored.
    pub fn set_line(
        &mut self,
        apics: &mut impl LocalApics,
        gsi: u8,
        source: LineSource,
        is_asserted: bool,
    ) {
        let Some(level) = self.lines.set(gsi, source, is_asserted) else { return };
        let route = self.lines.route(gsi);
        if let Some(pin) = route.pic {
            self.pics.set_pin(pin, level);
            self.update_output(apics);
        }
        if let Some(pin) = route.ioapic {
            let due = self.ioapic.set_pin(pin, level);
            self.send(apics, due);
        }
    }

    /// Sends the messages of I/O APIC pins.
    fn send(&mut self, apics: &mut impl LocalApics, due: Pins) {
        for pin in due {
            if self.ioapic.message(pin).is_some_and(|message| deliver(apics, &message)) {
                self.ioapic.accepted(pin);
            }
        }
    }

    /// Carries the 8259 pair's output to LINT0 of all processors.
    fn update_output(&mut self, apics: &mut impl LocalApics) {
        let output = self.pics.has_interrupt();
        if std::mem::replace(&mut self.output, output) == output {
            return;
        }
        let carry = |apic: &mut LocalApic| {
            // NMIs there are the watchdog's, see `advance`.
            if apic.takes_watchdog() {
                apic.set_lint0_level(output);
                return false;
            }
            apic.set_pin(Pin::Lint0, output)
        };
        for vcpu in 0..apics.count() {
            if apics.with(vcpu, carry) == Some(true) {
                apics.wake(vcpu);
            }
        }
    }

    /// Delivers a device's message (MSI): `data` written to `address`. Returns `true` if a
    /// processor accepted it.
    pub fn send_message(&self, apics: &mut impl LocalApics, address: u64, data: u32) -> bool {
        Message::from_device(address, data).is_some_and(|message| deliver(apics, &message))
    }

    /// Carries out the consequence of a processor's access of its local APIC.
    pub fn carry_out(&mut self, apics: &mut impl LocalApics, effect: Effect) {
        match effect {
            Effect::Send(message) => {
                deliver(apics, &message);
            }
            Effect::EndOfInterrupt(vector) => {
                let due = self.ioapic.end_of_interrupt(vector);
                self.send(apics, due);
            }
        }
    }

    /// Lines, one bit for each, whose interrupts end with an [end of
    /// interrupt](Effect::EndOfInterrupt) with this vector: those of the I/O APIC's level-triggered
    /// pins that have it.
    #[must_use]
    pub fn lines_with(&self, vector: u8) -> u32 {
        self.lines_where(|route| {
            route.ioapic.is_some_and(|pin| self.ioapic.is_level_with(pin, vector))
        })
    }

    /// Lines, one bit for each, whose interrupts end with this write to a port of the 8259 pair:
    /// they are in service before it and not after it.
    #[must_use]
    pub fn lines_ended_by(&self, port: u16, value: u8) -> u32 {
        let mut after = self.pics.clone();
        after.write_port(port, value);
        let ends = |pin| self.pics.is_in_service(pin) && !after.is_in_service(pin);
        self.lines_where(|route| route.pic.is_some_and(ends))
    }

    fn lines_where(&self, is_meant: impl Fn(Route) -> bool) -> u32 {
        let bit = |gsi: u8| 1_u32.wrapping_shl(gsi.into());
        (0..GSIS)
            .filter(|gsi| is_meant(self.lines.route(*gsi)))
            .fold(0, |lines, gsi| lines | bit(gsi))
    }

    /// The acknowledge cycle of a processor that has an [external
    /// interrupt](LocalApic::has_external_interrupt): returns its vector, or `None` if another
    /// processor was faster.
    pub fn acknowledge(&mut self, apics: &mut impl LocalApics) -> Option<u8> {
        let vector = self.pics.has_interrupt().then(|| self.pics.acknowledge());
        self.update_output(apics);
        vector
    }

    /// Moves the timer on to `now`, in nanoseconds.
    pub fn advance(&mut self, apics: &mut impl LocalApics, now: u64) {
        if !self.pit.advance(now) {
            return;
        }
        self.set_line(apics, TIMER_GSI, LineSource::TIMER, true);
        self.set_line(apics, TIMER_GSI, LineSource::TIMER, false);
        // A guest's watchdog: the timer as an NMI at LINT0, which KVM sends past the 8259 pair.
        for vcpu in 0..apics.count() {
            let watch =
                |apic: &mut LocalApic| apic.takes_watchdog() && apic.accept(Delivery::Nmi, false);
            if apics.with(vcpu, watch) == Some(true) {
                apics.wake(vcpu);
            }
        }
    }

    /// Nanoseconds at which [`Self::advance`] is needed next.
    #[must_use]
    pub fn next_event(&self) -> Option<u64> {
        self.pit.next_event()
    }

    /// The 8259 pair's output, the level of LINT0.
    pub(crate) const fn output(&self) -> bool {
        self.output
    }

    /// Frequency of the tone on the speaker in Hz; `None` if it is off.
    #[must_use]
    pub fn tone(&self) -> Option<u64> {
        self.pit.tone()
    }

    /// Reads a byte from a port of [`PIC_PORTS`] or [`PIT_PORTS`] at `now`, in nanoseconds; `None`
    /// for another port.
    pub fn read_port(&mut self, apics: &mut impl LocalApics, port: u16, now: u64) -> Option<u8> {
        if PIT_PORTS.contains(&port) {
            return self.pit.read_port(port, now);
        }
        let value = self.pics.read_port(port);
        self.update_output(apics);
        value
    }

    /// Writes a byte to a port of [`PIC_PORTS`] or [`PIT_PORTS`] at `now`, in nanoseconds. Returns
    /// `false` for another port.
    pub fn write_port(
        &mut self,
        apics: &mut impl LocalApics,
        port: u16,
        value: u8,
        now: u64,
    ) -> bool {
        if PIC_PORTS.contains(&port) {
            self.pics.write_port(port, value);
            self.update_output(apics);
            return true;
        }
        self.pit.write_port(port, value, now)
    }

    /// Reads `width` bytes at `offset` of the I/O APIC's registers.
    #[must_use]
    pub fn read_ioapic(&self, offset: u64, width: u8) -> u32 {
        self.ioapic.read(offset, width)
    }

    /// Writes to `offset` of the I/O APIC's registers; `value` is zero-extended.
    pub fn write_ioapic(&mut self, apics: &mut impl LocalApics, offset: u64, value: u32) {
        let due = self.ioapic.write(offset, value);
        self.send(apics, due);
    }
}
