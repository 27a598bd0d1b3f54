//! The local vector table and the sources that it is for: timer, sensors, counters, pins, errors
//! (Intel SDM vol. 3, 12.5.1).

use super::{FIRST_VECTOR, LocalApic};
use crate::message::Delivery;

/// Entries of the local vector table.
pub(super) const ENTRIES: usize = 6;

/// Bits of an entry.
pub(super) const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const REMOTE_IRR: u32 = 1 << 14;
const POLARITY: u32 = 1 << 13;
const DELIVERY: u32 = 7 << 8;
const VECTOR: u32 = 0xff;
/// Delivery modes.
const FIXED: u32 = 0;
const NMI: u32 = 4 << 8;
const INIT: u32 = 5 << 8;
pub(super) const EXT_INT: u32 = 7 << 8;

/// An entry of the local vector table, in the order of the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Timer,
    Thermal,
    Counter,
    Lint0,
    Lint1,
    Error,
}

impl Entry {
    pub(super) const ALL: [Self; ENTRIES] =
        [Self::Timer, Self::Thermal, Self::Counter, Self::Lint0, Self::Lint1, Self::Error];

    /// Bits that software can write, but for the timer's mode.
    const fn writable(self) -> u32 {
        MASKED
            | VECTOR
            | match self {
                Self::Timer | Self::Error => 0,
                Self::Thermal | Self::Counter => DELIVERY,
                Self::Lint0 | Self::Lint1 => DELIVERY | POLARITY | LEVEL,
            }
    }
}

/// A local interrupt source other than the timer, the pins and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalSource {
    /// The thermal sensor.
    Thermal,
    /// Overflow of a performance counter. Its entry is masked when the interrupt is delivered (SDM
    /// vol. 3, 12.5.1).
    PerformanceCounter,
}

/// A local interrupt pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// Connected to the 8259 pair on a PC.
    Lint0,
    /// Connected to the source of NMIs on a PC.
    Lint1,
}

impl Pin {
    const fn entry(self) -> Entry {
        match self {
            Self::Lint0 => Entry::Lint0,
            Self::Lint1 => Entry::Lint1,
        }
    }
}

/// The table after a reset: all masked, but LINT0 of the bootstrap processor takes external
/// interrupts, as in KVM: there is no firmware to set it.
pub(super) fn reset_entries(is_bootstrap: bool) -> [u32; ENTRIES] {
    Entry::ALL.map(|entry| if is_bootstrap && entry == Entry::Lint0 { EXT_INT } else { MASKED })
}

impl LocalApic {
    /// Bits of an entry that can ever be set.
    pub(super) const fn valid_entry_bits(&self, entry: Entry) -> u32 {
        match entry {
            Entry::Timer => entry.writable() | self.timer_mode_bits(),
            Entry::Lint0 => entry.writable() | REMOTE_IRR,
            _ => entry.writable(),
        }
    }

    pub(super) fn entry(&self, entry: Entry) -> u32 {
        self.entries.get(entry as usize).copied().unwrap_or(MASKED)
    }

    fn store(&mut self, entry: Entry, value: u32) {
        if let Some(stored) = self.entries.get_mut(entry as usize) {
            *stored = value;
        }
    }

    /// Writes an entry. While software disables the APIC it stays masked (SDM vol. 3, 12.4.7.2).
    pub(super) fn set_entry(&mut self, entry: Entry, value: u32) {
        let forced = if self.spurious & super::ENABLED == 0 { MASKED } else { 0 };
        let kept = self.entry(entry) & REMOTE_IRR;
        let value = value & (self.valid_entry_bits(entry) & !REMOTE_IRR) | forced;
        // An edge-triggered entry has no interrupt that waits for its end.
        let kept = if value & LEVEL == 0 { 0 } else { kept };
        self.store(entry, value | kept);
        if entry == Entry::Lint0 && value & (LEVEL | MASKED) == LEVEL && self.pin(Pin::Lint0) {
            self.deliver_entry(entry);
        }
    }

    /// Masks all entries: software disables the APIC.
    pub(super) fn mask_entries(&mut self) {
        self.entries = self.entries.map(|entry| entry | MASKED);
    }

    /// Delivers the interrupt of an entry as it says, if it is not masked. Returns `true` if it is
    /// accepted.
    pub(super) fn deliver_entry(&mut self, entry: Entry) -> bool {
        let value = self.entry(entry);
        if value & MASKED != 0 || self.mode() == super::ApicMode::Disabled {
            return false;
        }
        let [vector, ..] = value.to_le_bytes();
        let has_mode = entry.writable() & DELIVERY != 0;
        match value & DELIVERY {
            _ if !has_mode => self.accept(Delivery::Fixed(vector), false),
            FIXED if entry == Entry::Lint0 && value & LEVEL != 0 => {
                self.deliver_level(vector, value)
            }
            FIXED => self.accept(Delivery::Fixed(vector), false),
            NMI => self.accept(Delivery::Nmi, false),
            INIT => self.accept(Delivery::Init, false),
            // External interrupts come from the 8259 pair; there is no system management mode.
            _ => false,
        }
    }

    /// A level-triggered pin: one interrupt until its end.
    fn deliver_level(&mut self, vector: u8, value: u32) -> bool {
        let is_accepted = value & REMOTE_IRR == 0 && self.accept(Delivery::Fixed(vector), true);
        if is_accepted {
            self.store(Entry::Lint0, value | REMOTE_IRR);
        }
        is_accepted
    }

    /// A level-triggered pin's interrupt has ended, and comes again if the pin is still asserted.
    pub(super) fn end_pin_interrupt(&mut self, vector: u8) {
        let value = self.entry(Entry::Lint0);
        if value & REMOTE_IRR != 0 && value & VECTOR == u32::from(vector) {
            self.store(Entry::Lint0, value & !REMOTE_IRR);
            if self.pin(Pin::Lint0) {
                self.deliver_entry(Entry::Lint0);
            }
        }
    }

    /// Requests the error interrupt. Its own illegal vector is no further error.
    pub(super) fn deliver_error(&mut self) {
        let [vector, ..] = self.entry(Entry::Error).to_le_bytes();
        if vector >= FIRST_VECTOR {
            self.deliver_entry(Entry::Error);
        }
    }

    /// An interrupt of a local source. Returns `true` if it is accepted.
    pub fn signal(&mut self, source: LocalSource) -> bool {
        match source {
            LocalSource::Thermal => self.deliver_entry(Entry::Thermal),
            LocalSource::PerformanceCounter => {
                let is_accepted = self.deliver_entry(Entry::Counter);
                if is_accepted {
                    self.store(Entry::Counter, self.entry(Entry::Counter) | MASKED);
                }
                is_accepted
            }
        }
    }

    const fn pin(&self, pin: Pin) -> bool {
        let [lint0, lint1] = self.pins;
        match pin {
            Pin::Lint0 => lint0,
            Pin::Lint1 => lint1,
        }
    }

    /// Sets the level of a pin. Returns `true` if the processor is to be woken: the pin's interrupt
    /// is accepted, or an external interrupt now [waits](Self::has_external_interrupt).
    pub fn set_pin(&mut self, pin: Pin, is_asserted: bool) -> bool {
        let is_rising = is_asserted && !self.pin(pin);
        match pin {
            Pin::Lint0 => self.pins[0] = is_asserted,
            Pin::Lint1 => self.pins[1] = is_asserted,
        }
        if !is_rising {
            return false;
        }
        self.deliver_entry(pin.entry()) || pin == Pin::Lint0 && self.has_external_interrupt()
    }

    /// Sets the level of LINT0 without an edge.
    pub(crate) const fn set_lint0_level(&mut self, is_asserted: bool) {
        let [lint0, _] = &mut self.pins;
        *lint0 = is_asserted;
    }

    /// Returns `true` if the processor takes interrupts of the 8259 pair: LINT0 says so, or the
    /// APIC is disabled and the pin is the processor's own (SDM vol. 3, 12.4.3).
    #[must_use]
    pub fn accepts_external_interrupts(&self) -> bool {
        let value = self.entry(Entry::Lint0);
        self.mode() == super::ApicMode::Disabled || value & (MASKED | DELIVERY) == EXT_INT
    }

    /// Returns `true` if the 8259 pair wants to interrupt this processor: its vector comes from
    /// there.
    #[must_use]
    pub fn has_external_interrupt(&self) -> bool {
        self.pin(Pin::Lint0) && self.accepts_external_interrupts()
    }

    /// Returns `true` if LINT0 takes non-maskable interrupts: then those of the PIT come there, as
    /// KVM's watchdog does it.
    #[must_use]
    pub fn takes_watchdog(&self) -> bool {
        self.entry(Entry::Lint0) & (MASKED | DELIVERY) == NMI
            && self.mode() != super::ApicMode::Disabled
    }
}
