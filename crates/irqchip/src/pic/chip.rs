//! One 8259A (data sheet, "programming the 8259A").

use nerite_saved::{RestoreError, refuse};

/// Bits of the command port: ICW1 has the first, OCW3 the second, OCW2 neither.
const ICW1: u8 = 1 << 4;
const OCW3: u8 = 1 << 3;
/// ICW1: no second chip, so no ICW3; ICW4 follows.
const SINGLE: u8 = 1 << 1;
const NEEDS_ICW4: u8 = 1 << 0;
/// ICW4: special fully nested mode, automatic end of interrupt.
const SPECIAL_NESTED: u8 = 1 << 4;
const AUTO_END: u8 = 1 << 1;
/// OCW3: poll, register to be read, special mask mode, each with the bit that makes it count.
const POLL: u8 = 1 << 2;
const READ_REGISTER: u8 = 1 << 1;
const SPECIAL_MASK: u8 = 1 << 6;
/// A poll has found an interrupt.
const POLLED: u8 = 1 << 7;
/// Value of a poll without an interrupt.
const NOT_POLLED: u8 = 7;

/// The initialization command word that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum NextWord {
    /// None: initialized, or never begun.
    Operation,
    /// ICW2, the vector base.
    Icw2,
    /// ICW3, the cascade.
    Icw3,
    /// ICW4, modes.
    Icw4,
}

fn bit(pin: u8) -> u8 {
    1_u8.wrapping_shl(pin.into())
}

/// The set of one pin with the highest priority, if `lowest` is the pin with the lowest.
fn first_after(lowest: u8, pins: u8) -> Option<u8> {
    let shift = u32::from(lowest).wrapping_add(1) & 7;
    let place =
        u8::try_from(pins.rotate_right(shift).trailing_zeros()).ok().filter(|place| *place < 8)?;
    Some(place.wrapping_add(lowest).wrapping_add(1) & 7)
}

/// One chip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pic {
    /// The second chip is connected to this one.
    has_cascade: bool,
    requested: u8,
    in_service: u8,
    masked: u8,
    /// The edge/level control register: pins that are level-triggered.
    level: u8,
    /// Pins that are asserted.
    asserted: u8,
    base: u8,
    /// The pin with the lowest priority.
    lowest: u8,
    next_word: NextWord,
    is_single: bool,
    needs_icw4: bool,
    auto_end: bool,
    rotates: bool,
    special_nested: bool,
    special_mask: bool,
    reads_in_service: bool,
    polls: bool,
}

impl Pic {
    pub(super) const fn new(has_cascade: bool) -> Self {
        Self {
            has_cascade,
            requested: 0,
            in_service: 0,
            masked: 0,
            level: 0,
            asserted: 0,
            base: 0,
            lowest: 7,
            next_word: NextWord::Operation,
            is_single: false,
            needs_icw4: false,
            auto_end: false,
            rotates: false,
            special_nested: false,
            special_mask: false,
            reads_in_service: false,
            polls: false,
        }
    }

    pub(super) const fn is_single(&self) -> bool {
        self.is_single
    }

    /// An edge is latched; a level is requested while it lasts.
    pub(super) fn set_pin(&mut self, pin: u8, is_asserted: bool) {
        let bit = bit(pin);
        let is_level = self.level & bit != 0;
        if is_asserted {
            if is_level || self.asserted & bit == 0 {
                self.requested |= bit;
            }
            self.asserted |= bit;
        } else {
            if is_level {
                self.requested &= !bit;
            }
            self.asserted &= !bit;
        }
    }

    pub(super) fn is_in_service(&self, pin: u8) -> bool {
        self.in_service & bit(pin) != 0
    }

    pub(super) const fn level(&self) -> u8 {
        self.level
    }

    /// Writes the edge/level control register. Level-triggered pins are requested from now on while
    /// they are asserted.
    pub(super) fn set_level(&mut self, level: u8) {
        self.level = level;
        self.requested = self.requested & !level | self.asserted & level;
    }

    /// Takes back a request that was latched.
    pub(super) fn withdraw(&mut self, pin: u8) {
        self.requested &= !bit(pin);
    }

    /// The pin whose interrupt is to be served now: the highest one requested and not masked, if no
    /// other of its priority or above is in service.
    pub(super) fn wanted(&self) -> Option<u8> {
        let pin = first_after(self.lowest, self.requested & !self.masked)?;
        // Special mask mode: what is masked holds nothing back. Special fully nested mode: the
        // second chip may interrupt itself.
        let mut serving = self.in_service;
        if self.special_mask {
            serving &= !self.masked;
        }
        if self.special_nested && self.has_cascade {
            serving &= !bit(super::CASCADE);
        }
        let first = first_after(self.lowest, serving | bit(pin))?;
        (first == pin && serving & bit(pin) == 0).then_some(pin)
    }

    pub(super) const fn vector(&self, pin: u8) -> u8 {
        self.base | pin & 7
    }

    /// The acknowledge cycle for this pin.
    pub(super) fn acknowledge(&mut self, pin: u8) {
        if self.level & bit(pin) == 0 {
            self.requested &= !bit(pin);
        }
        if !self.auto_end {
            self.in_service |= bit(pin);
        } else if self.rotates {
            self.lowest = pin;
        }
    }

    /// Reads the data port or the command port; after a poll command either acknowledges an
    /// interrupt. Returns the value, and `true` if an interrupt was acknowledged.
    pub(super) fn read(&mut self, is_data: bool) -> (u8, bool) {
        if std::mem::take(&mut self.polls) {
            let Some(pin) = self.wanted() else { return (NOT_POLLED, false) };
            self.acknowledge(pin);
            return (POLLED | pin, true);
        }
        let value = match (is_data, self.reads_in_service) {
            (true, _) => self.masked,
            (false, true) => self.in_service,
            (false, false) => self.requested,
        };
        (value, false)
    }

    pub(super) fn write_command(&mut self, value: u8) {
        if value & ICW1 != 0 {
            self.begin(value);
        } else if value & OCW3 != 0 {
            self.polls |= value & POLL != 0;
            if value & READ_REGISTER != 0 {
                self.reads_in_service = value & 1 != 0;
            }
            if value & SPECIAL_MASK != 0 {
                self.special_mask = value & SPECIAL_MASK >> 1 != 0;
            }
        } else {
            self.end(value >> 5, value & 7);
        }
    }

    /// ICW1: edges are forgotten, levels stay; priorities and modes as at first (data sheet,
    /// "initialization command words").
    fn begin(&mut self, value: u8) {
        self.requested &= self.level;
        self.asserted &= self.level;
        self.masked = 0;
        self.lowest = 7;
        self.special_mask = false;
        self.reads_in_service = false;
        self.polls = false;
        self.is_single = value & SINGLE != 0;
        self.needs_icw4 = value & NEEDS_ICW4 != 0;
        if !self.needs_icw4 {
            self.special_nested = false;
            self.auto_end = false;
        }
        self.next_word = NextWord::Icw2;
    }

    /// OCW2: ends of interrupts and rotation.
    fn end(&mut self, command: u8, pin: u8) {
        let serving =
            if self.special_mask { self.in_service & !self.masked } else { self.in_service };
        let highest = first_after(self.lowest, serving);
        match command {
            // Rotation in automatic mode, cleared and set.
            0b000 => self.rotates = false,
            0b100 => self.rotates = true,
            // Non-specific end, without and with rotation.
            0b001 | 0b101 => {
                if let Some(pin) = highest {
                    self.in_service &= !bit(pin);
                    if command == 0b101 {
                        self.lowest = pin;
                    }
                }
            }
            // Specific end, without and with rotation.
            0b011 => self.in_service &= !bit(pin),
            0b111 => {
                self.in_service &= !bit(pin);
                self.lowest = pin;
            }
            // Sets the priority.
            0b110 => self.lowest = pin,
            _ => {}
        }
    }

    pub(super) fn write_data(&mut self, value: u8) {
        self.next_word = match self.next_word {
            NextWord::Operation => {
                self.masked = value;
                NextWord::Operation
            }
            NextWord::Icw2 => {
                self.base = value & 0xf8;
                if self.is_single { self.after_icw3() } else { NextWord::Icw3 }
            }
            // The wiring of a PC is what it is.
            NextWord::Icw3 => self.after_icw3(),
            NextWord::Icw4 => {
                self.special_nested = value & SPECIAL_NESTED != 0;
                self.auto_end = value & AUTO_END != 0;
                NextWord::Operation
            }
        }
    }

    const fn after_icw3(&self) -> NextWord {
        if self.needs_icw4 { NextWord::Icw4 } else { NextWord::Operation }
    }

    pub(super) const fn save(&self) -> SavedPic {
        SavedPic {
            requested: self.requested,
            in_service: self.in_service,
            masked: self.masked,
            level: self.level,
            asserted: self.asserted,
            base: self.base,
            lowest: self.lowest,
            next_word: self.next_word,
            is_single: self.is_single,
            needs_icw4: self.needs_icw4,
            auto_end: self.auto_end,
            rotates: self.rotates,
            special_nested: self.special_nested,
            special_mask: self.special_mask,
            reads_in_service: self.reads_in_service,
            polls: self.polls,
        }
    }

    pub(super) fn restore(has_cascade: bool, saved: &SavedPic) -> Result<Self, RestoreError> {
        refuse("8259", "base", saved.base & 7 != 0)?;
        refuse("8259", "lowest", saved.lowest > 7)?;
        Ok(Self {
            has_cascade,
            requested: saved.requested,
            in_service: saved.in_service,
            masked: saved.masked,
            level: saved.level,
            asserted: saved.asserted,
            base: saved.base,
            lowest: saved.lowest,
            next_word: saved.next_word,
            is_single: saved.is_single,
            needs_icw4: saved.needs_icw4,
            auto_end: saved.auto_end,
            rotates: saved.rotates,
            special_nested: saved.special_nested,
            special_mask: saved.special_mask,
            reads_in_service: saved.reads_in_service,
            polls: saved.polls,
        })
    }
}

/// State of one 8259A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedPic {
    /// Interrupt request register.
    pub requested: u8,
    /// In-service register.
    pub in_service: u8,
    /// Interrupt mask register.
    pub masked: u8,
    /// Edge/level control register: pins that are level-triggered.
    pub level: u8,
    /// Pins that are asserted, as far as the edge detection knows.
    pub asserted: u8,
    /// Vector of pin 0 (ICW2).
    pub base: u8,
    /// The pin with the lowest priority.
    pub lowest: u8,
    /// The initialization command word that comes next.
    pub next_word: NextWord,
    /// The chip has no second one (ICW1).
    pub is_single: bool,
    /// ICW4 follows, or has followed (ICW1).
    pub needs_icw4: bool,
    /// Automatic end of interrupt (ICW4).
    pub auto_end: bool,
    /// Priorities rotate at an automatic end (OCW2).
    pub rotates: bool,
    /// Special fully nested mode (ICW4).
    pub special_nested: bool,
    /// Special mask mode (OCW3).
    pub special_mask: bool,
    /// Reads give the in-service register instead of requests (OCW3).
    pub reads_in_service: bool,
    /// The next read is a poll (OCW3).
    pub polls: bool,
}
