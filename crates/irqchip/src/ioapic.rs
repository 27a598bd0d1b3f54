//! An I/O APIC with 24 pins (82093AA data sheet).

#[cfg(test)]
#[path = "ioapic_test.rs"]
mod tests;

use crate::message::Message;
use nerite_saved::{RestoreError, check_version, refuse};

/// Pins of an I/O APIC.
pub const IOAPIC_PINS: u8 = 24;
/// Guest-physical address of a PC's I/O APIC.
pub const IOAPIC_ADDRESS: u64 = 0xfec0_0000;
/// Bytes of its registers.
pub const IOAPIC_SIZE: u64 = 0x100;
/// Version of [`SavedIoApic`].
pub const IOAPIC_VERSION: u32 = 1;

/// Offsets of the registers in memory (82093AA, 3.1; the EOI register is of version 0x20).
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const END_OF_INTERRUPT: u64 = 0x40;

/// Indices of the registers behind the window (82093AA, 3.2).
const ID: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION_ID: u8 = 2;
const FIRST_ENTRY: u8 = 0x10;

/// Bits of a redirection entry (82093AA, 3.2.4).
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Vector, delivery mode, destination mode, polarity, trigger mode, mask, destination.
const WRITABLE: u64 = 0xff00_0000_0001_afff;

/// Version of an I/O APIC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum IoApicVersion {
    /// 0x11, the 82093AA and KVM's: interrupts end by the broadcasts of local APICs alone.
    #[default]
    Original,
    /// 0x20: there is an EOI register, too, so that local APICs may suppress their broadcasts.
    WithEoiRegister,
}

impl IoApicVersion {
    const fn number(self) -> u32 {
        match self {
            Self::Original => 0x11,
            Self::WithEoiRegister => 0x20,
        }
    }
}

/// Pins whose interrupts are to be sent now, lowest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use = "the interrupts of these pins are to be delivered"]
pub struct Pins(u32);

impl Pins {
    /// No pin.
    pub const NONE: Self = Self(0);

    fn of(pin: u8) -> Self {
        Self(bit(pin))
    }
}

impl Iterator for Pins {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let pin = u8::try_from(self.0.trailing_zeros()).ok().filter(|pin| *pin < IOAPIC_PINS)?;
        self.0 &= !bit(pin);
        Some(pin)
    }
}

/// The bit of a pin; none for one that does not exist.
fn bit(pin: u8) -> u32 {
    if pin < IOAPIC_PINS { 1_u32.wrapping_shl(pin.into()) } else { 0 }
}

/// An I/O APIC.
///
/// Each call that changes its state returns the [`Pins`] whose interrupts are due. For each of them
/// the caller asks for the [`message`](Self::message), delivers it to the local APICs, and notes
/// with [`accepted`](Self::accepted) if one of them took it. Lines are asserted or not; the
/// polarity bit of an entry is kept for the guest and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoApic {
    version: IoApicVersion,
    id: u8,
    select: u8,
    entries: [u64; IOAPIC_PINS as usize],
    /// Pins that are asserted.
    asserted: u32,
}

impl IoApic {
    /// The I/O APIC after power-up: all pins masked.
    #[must_use]
    pub const fn new(version: IoApicVersion) -> Self {
        Self { version, id: 0, select: 0, entries: [MASKED; IOAPIC_PINS as usize], asserted: 0 }
    }

    fn entry(&self, pin: u8) -> u64 {
        self.entries.get(usize::from(pin)).copied().unwrap_or(MASKED)
    }

    fn entry_mut(&mut self, pin: u8) -> Option<&mut u64> {
        self.entries.get_mut(usize::from(pin))
    }

    /// Asserts or de-asserts a pin. An edge on a masked pin is lost; a level waits (82093AA, 3.2.4,
    /// interrupt mask).
    pub fn set_pin(&mut self, pin: u8, is_asserted: bool) -> Pins {
        let was_asserted = self.asserted & bit(pin) != 0;
        if !is_asserted {
            self.asserted &= !bit(pin);
            return Pins::NONE;
        }
        self.asserted |= bit(pin);
        let is_due = self.entry(pin) & LEVEL != 0 || !was_asserted;
        if is_due { Pins::of(pin) } else { Pins::NONE }
    }

    /// The message of a pin that is due; `None` if it is masked, waits for the end of its last
    /// interrupt, or has a delivery mode that no processor here takes.
    #[must_use]
    pub fn message(&self, pin: u8) -> Option<Message> {
        let entry = self.entry(pin);
        if entry & MASKED != 0 || entry & (LEVEL | REMOTE_IRR) == LEVEL | REMOTE_IRR {
            return None;
        }
        let [low, .., destination] = entry.to_le_bytes();
        let [_, mode, ..] = entry.to_le_bytes();
        Message::from_pin(destination, u32::from_le_bytes([low, mode, 0, 0]))
    }

    /// Notes that a local APIC has accepted the message of this pin: a level-triggered one now
    /// waits for its end.
    pub fn accepted(&mut self, pin: u8) {
        if let Some(entry) = self.entry_mut(pin).filter(|entry| **entry & LEVEL != 0) {
            *entry |= REMOTE_IRR;
        }
    }

    /// Returns `true` if the pin is level-triggered and has this vector.
    pub(crate) fn is_level_with(&self, pin: u8, vector: u8) -> bool {
        let entry = self.entry(pin);
        entry & LEVEL != 0 && entry & 0xff == u64::from(vector)
    }

    /// Interrupts with this vector have ended: by a local APIC's broadcast, or the EOI register.
    /// Pins that are still asserted are due again.
    pub fn end_of_interrupt(&mut self, vector: u8) -> Pins {
        let mut due = 0;
        for (pin, entry) in (0..IOAPIC_PINS).zip(&mut self.entries) {
            if *entry & 0xff == u64::from(vector) && *entry & LEVEL != 0 {
                *entry &= !REMOTE_IRR;
                due |= self.asserted & bit(pin);
            }
        }
        Pins(due)
    }

    /// Reads `width` bytes at `offset` of the registers in memory.
    #[must_use]
    pub fn read(&self, offset: u64, width: u8) -> u32 {
        let value = match offset {
            SELECT => self.select.into(),
            WINDOW => self.read_window(),
            _ => 0,
        };
        match width {
            1 => value & 0xff,
            2 => value & 0xffff,
            _ => value,
        }
    }

    /// Pin and half of the redirection entry that is selected: `true` is the upper half.
    fn selected(&self) -> Option<(u8, bool)> {
        let index = self.select.checked_sub(FIRST_ENTRY)?;
        (index / 2 < IOAPIC_PINS).then_some((index / 2, index % 2 == 1))
    }

    fn read_window(&self) -> u32 {
        match self.select {
            VERSION => u32::from(IOAPIC_PINS - 1) << 16 | self.version.number(),
            ID | ARBITRATION_ID => u32::from(self.id) << 24,
            _ => match self.selected() {
                Some((pin, is_upper)) => {
                    let entry = self.entry(pin);
                    let half = if is_upper { entry >> 32 } else { entry & u64::from(u32::MAX) };
                    u32::try_from(half).unwrap_or(0)
                }
                None => u32::MAX,
            },
        }
    }

    /// Writes to `offset` of the registers in memory; `value` is zero-extended.
    pub fn write(&mut self, offset: u64, value: u32) -> Pins {
        let [byte, .., highest] = value.to_le_bytes();
        match offset {
            SELECT => self.select = byte,
            WINDOW => match self.select {
                ID => self.id = highest & 0xf,
                _ => return self.write_entry(value),
            },
            END_OF_INTERRUPT if self.version == IoApicVersion::WithEoiRegister => {
                return self.end_of_interrupt(byte);
            }
            _ => {}
        }
        Pins::NONE
    }

    fn write_entry(&mut self, value: u32) -> Pins {
        let Some((pin, is_upper)) = self.selected() else { return Pins::NONE };
        let asserted = self.asserted & bit(pin);
        let Some(entry) = self.entry_mut(pin) else { return Pins::NONE };
        let (kept, shift) =
            if is_upper { (u64::from(u32::MAX), 32) } else { (!u64::from(u32::MAX), 0) };
        let remote = *entry & REMOTE_IRR;
        *entry = (*entry & kept | u64::from(value) << shift) & WRITABLE | remote;
        if *entry & LEVEL == 0 {
            // Guests end interrupts so where there is no EOI register.
            *entry &= !REMOTE_IRR;
            return Pins::NONE;
        }
        Pins(asserted)
    }

    /// The state at this moment.
    #[must_use]
    pub fn save(&self) -> SavedIoApic {
        SavedIoApic {
            version: IOAPIC_VERSION,
            kind: self.version,
            id: self.id,
            select: self.select,
            entries: self.entries,
            asserted: self.asserted,
        }
    }

    /// The I/O APIC with a saved state.
    ///
    /// # Errors
    /// If the state is of another version, or not one that an I/O APIC can have.
    pub fn restore(saved: &SavedIoApic) -> Result<Self, RestoreError> {
        let refuse = |field, is_bad| refuse("I/O APIC", field, is_bad);
        check_version("I/O APIC", saved.version, IOAPIC_VERSION)?;
        refuse("id", saved.id > 0xf)?;
        let is_bad = |entry: &u64| {
            entry & !(WRITABLE | REMOTE_IRR) != 0 || entry & (LEVEL | REMOTE_IRR) == REMOTE_IRR
        };
        refuse("entries", saved.entries.iter().any(is_bad))?;
        refuse("asserted", saved.asserted >> IOAPIC_PINS != 0)?;
        Ok(Self {
            version: saved.kind,
            id: saved.id,
            select: saved.select,
            entries: saved.entries,
            asserted: saved.asserted,
        })
    }
}

/// State of an I/O APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedIoApic {
    /// [`IOAPIC_VERSION`].
    pub version: u32,
    /// The version that the guest sees.
    pub kind: IoApicVersion,
    /// APIC ID, 4 bits.
    pub id: u8,
    /// Index of the register behind the window.
    pub select: u8,
    /// Redirection entries (82093AA, 3.2.4).
    pub entries: [u64; 24],
    /// One bit for each pin that is asserted.
    pub asserted: u32,
}
