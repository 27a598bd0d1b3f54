//! Two cascaded 8259A interrupt controllers (8259A data sheet; the ELCR registers are those of
//! Intel's chip sets).

mod chip;

use chip::Pic;
pub use chip::{NextWord, SavedPic};
use nerite_saved::{RestoreError, check_version, refuse};

/// Ports of the pair: commands and data of both chips, then their edge/level control registers.
pub const PIC_PORTS: [u16; 6] = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1];
/// Pins of the pair; pin 2 is the cascade.
pub const PIC_PINS: u8 = 16;
/// Version of [`SavedPicPair`].
pub const PIC_VERSION: u32 = 1;

/// Pin of the first chip that the second one is connected to.
const CASCADE: u8 = 2;
/// Pins that can be level-triggered: not the timer, the keyboard and the cascade; not the clock and
/// the coprocessor.
const FIRST_ELCR: u8 = 0xf8;
const SECOND_ELCR: u8 = 0xde;
/// The pin whose vector a spurious interrupt gets.
const SPURIOUS: u8 = 7;

/// The pair of interrupt controllers of a PC.
///
/// Its output is [`has_interrupt`](Self::has_interrupt), to be looked at after each call that
/// changes the pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PicPair {
    first: Pic,
    second: Pic,
}

impl Default for PicPair {
    fn default() -> Self {
        Self::new()
    }
}

impl PicPair {
    /// The pair after power-up, not initialized.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: Pic::new(true), second: Pic::new(false) }
    }

    /// Asserts or de-asserts a pin. The cascade cannot be driven, nor pins that do not exist.
    pub fn set_pin(&mut self, pin: u8, is_asserted: bool) {
        match pin {
            CASCADE => {}
            0..=7 => self.first.set_pin(pin, is_asserted),
            8..PIC_PINS => self.second.set_pin(pin & 7, is_asserted),
            _ => {}
        }
        self.update_cascade();
    }

    /// The second chip's output as an edge on the cascade.
    fn update_cascade(&mut self) {
        if self.second.wanted().is_some() {
            self.first.set_pin(CASCADE, true);
            self.first.set_pin(CASCADE, false);
        }
    }

    /// Returns `true` if the pair's output is asserted: an interrupt waits for the processor.
    #[must_use]
    pub fn has_interrupt(&self) -> bool {
        self.first.wanted().is_some()
    }

    /// Returns `true` if the interrupt of this pin is in service.
    pub(crate) fn is_in_service(&self, pin: u8) -> bool {
        match pin {
            0..=7 => self.first.is_in_service(pin),
            8..PIC_PINS => self.second.is_in_service(pin & 7),
            _ => false,
        }
    }

    /// The processor's interrupt acknowledge cycle: returns the vector. Without an interrupt that
    /// waits it is the spurious one, of pin 7 of the chip that was asked (8259A, "interrupt
    /// sequence").
    pub fn acknowledge(&mut self) -> u8 {
        let Some(pin) = self.first.wanted() else { return self.first.vector(SPURIOUS) };
        self.first.acknowledge(pin);
        if pin != CASCADE || self.first.is_single() {
            return self.first.vector(pin);
        }
        let vector = match self.second.wanted() {
            Some(pin) => {
                self.second.acknowledge(pin);
                self.second.vector(pin)
            }
            None => self.second.vector(SPURIOUS),
        };
        self.update_cascade();
        vector
    }

    /// Reads a byte from one of [`PIC_PORTS`]. After a poll command this acknowledges an interrupt.
    #[must_use]
    pub fn read_port(&mut self, port: u16) -> Option<u8> {
        let value = match port {
            0x20 | 0x21 => self.first.read(port & 1 == 1).0,
            0xa0 | 0xa1 => {
                let (value, is_acknowledged) = self.second.read(port & 1 == 1);
                if is_acknowledged {
                    self.first.withdraw(CASCADE);
                }
                value
            }
            0x4d0 => self.first.level(),
            0x4d1 => self.second.level(),
            _ => return None,
        };
        self.update_cascade();
        Some(value)
    }

    /// Writes a byte to one of [`PIC_PORTS`]. Returns `false` for another port.
    pub fn write_port(&mut self, port: u16, value: u8) -> bool {
        match port {
            0x20 => self.first.write_command(value),
            0x21 => self.first.write_data(value),
            0xa0 => self.second.write_command(value),
            0xa1 => self.second.write_data(value),
            0x4d0 => self.first.set_level(value & FIRST_ELCR),
            0x4d1 => self.second.set_level(value & SECOND_ELCR),
            _ => return false,
        }
        self.update_cascade();
        true
    }

    /// The state at this moment.
    #[must_use]
    pub const fn save(&self) -> SavedPicPair {
        SavedPicPair { version: PIC_VERSION, chips: [self.first.save(), self.second.save()] }
    }

    /// The pair with a saved state.
    ///
    /// # Errors
    /// If the state is of another version, or not one that the chips can have.
    pub fn restore(saved: &SavedPicPair) -> Result<Self, RestoreError> {
        check_version("8259", saved.version, PIC_VERSION)?;
        let [first, second] = &saved.chips;
        refuse(
            "8259",
            "level",
            first.level & !FIRST_ELCR != 0 || second.level & !SECOND_ELCR != 0,
        )?;
        Ok(Self { first: Pic::restore(true, first)?, second: Pic::restore(false, second)? })
    }
}

/// State of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedPicPair {
    /// [`PIC_VERSION`].
    pub version: u32,
    /// The first chip, then the one behind its pin 2.
    pub chips: [SavedPic; 2],
}

#[cfg(test)]
#[path = "pic_test.rs"]
mod tests;
