//! The registers of a local APIC and their two interfaces (Intel SDM vol. 3, tables 12-1 and 12-6).

use super::local::Entry;
use super::{
    ApicMode, ENABLED, Effect, FIRST_VECTOR, LocalApic, Refused, SUPPRESS_BROADCAST, X2APIC_MSRS,
    error,
};
use crate::message::{Message, Target};
use crate::time::Time;

/// Registers by their number: the x2APIC MSR less 0x800, or the xAPIC offset divided by 16.
mod register {
    pub(super) const ID: u32 = 0x02;
    pub(super) const VERSION: u32 = 0x03;
    pub(super) const TASK_PRIORITY: u32 = 0x08;
    pub(super) const ARBITRATION_PRIORITY: u32 = 0x09;
    pub(super) const PROCESSOR_PRIORITY: u32 = 0x0a;
    pub(super) const END_OF_INTERRUPT: u32 = 0x0b;
    pub(super) const LOGICAL_DESTINATION: u32 = 0x0d;
    pub(super) const DESTINATION_FORMAT: u32 = 0x0e;
    pub(super) const SPURIOUS: u32 = 0x0f;
    pub(super) const IN_SERVICE: u32 = 0x10;
    pub(super) const TRIGGER_MODE: u32 = 0x18;
    pub(super) const REQUESTED: u32 = 0x20;
    pub(super) const ERROR_STATUS: u32 = 0x28;
    pub(super) const COMMAND: u32 = 0x30;
    pub(super) const COMMAND_HIGH: u32 = 0x31;
    pub(super) const FIRST_ENTRY: u32 = 0x32;
    pub(super) const LAST_ENTRY: u32 = 0x37;
    pub(super) const INITIAL_COUNT: u32 = 0x38;
    pub(super) const CURRENT_COUNT: u32 = 0x39;
    pub(super) const DIVIDE: u32 = 0x3e;
    pub(super) const SELF_INTERRUPT: u32 = 0x3f;
}

/// Version 0x14 of the integrated APIC, with six entries in its local vector table.
const VERSION: u32 = 0x14 | 5 << 16;
/// The version register: EOI broadcasts can be suppressed.
const DIRECTED_EOI: u32 = 1 << 24;
/// Writable bits of the spurious-interrupt vector register: vector, enable bit and focus
/// processor checking.
const SPURIOUS_BITS: u32 = 0x3ff;
/// Delivery status of a command, which is always idle.
const DELIVERY_STATUS: u64 = 1 << 12;
/// Reserved bits of the command register in x2APIC mode (SDM vol. 3, figure 12-28).
const COMMAND_RESERVED: u64 = 0xfff0_0000 | 3 << 16 | 1 << 13;
/// Size of the page of registers, of a register in it, and of an access.
const PAGE: u64 = 0x400;
const STRIDE: u64 = 16;
const WORD: u64 = 4;

const fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

impl LocalApic {
    /// The logical x2APIC ID: the cluster and one bit for the place in it (SDM vol. 3, 12.12.10.2).
    pub(super) const fn x2apic_logical_id(&self) -> u32 {
        (self.id >> 4) << 16 | 1_u32.wrapping_shl(self.id & 0xf)
    }

    const fn version(&self) -> u32 {
        if self.config.has_directed_eoi { VERSION | DIRECTED_EOI } else { VERSION }
    }

    fn entry_of(number: u32) -> Option<Entry> {
        let at = usize::try_from(number.checked_sub(register::FIRST_ENTRY)?).ok()?;
        Entry::ALL.get(at).copied()
    }

    /// Reads a register that both modes have, or that only one has and the caller knows it is that
    /// one.
    fn read(&self, number: u32, now: u64) -> Result<u32, Refused> {
        Ok(match number {
            register::VERSION => self.version(),
            register::TASK_PRIORITY => self.task_priority,
            register::PROCESSOR_PRIORITY => self.processor_priority().into(),
            register::SPURIOUS => self.spurious,
            register::IN_SERVICE..=0x17 => {
                self.in_service.word(number.wrapping_sub(register::IN_SERVICE))
            }
            register::TRIGGER_MODE..=0x1f => {
                self.level.word(number.wrapping_sub(register::TRIGGER_MODE))
            }
            register::REQUESTED..=0x27 => {
                self.requested.word(number.wrapping_sub(register::REQUESTED))
            }
            register::ERROR_STATUS => self.errors,
            register::FIRST_ENTRY..=register::LAST_ENTRY => {
                Self::entry_of(number).map(|entry| self.entry(entry)).ok_or(Refused)?
            }
            register::INITIAL_COUNT => self.timer.initial_count,
            register::CURRENT_COUNT => self.current_count(now),
            register::DIVIDE => self.timer.divide,
            _ => return Err(Refused),
        })
    }

    /// Writes a register that both modes have.
    fn write(&mut self, number: u32, value: u32, now: u64) -> Result<Option<Effect>, Refused> {
        match number {
            register::TASK_PRIORITY => self.task_priority = value & 0xff,
            register::END_OF_INTERRUPT => return Ok(self.end_of_interrupt()),
            register::SPURIOUS => {
                let extra = if self.config.has_directed_eoi { SUPPRESS_BROADCAST } else { 0 };
                self.spurious = value & (SPURIOUS_BITS | extra);
                if value & ENABLED == 0 {
                    self.mask_entries();
                }
            }
            register::ERROR_STATUS => self.errors = std::mem::take(&mut self.new_errors),
            register::FIRST_ENTRY..=register::LAST_ENTRY => match Self::entry_of(number) {
                Some(Entry::Timer) => self.set_timer_entry(value),
                Some(entry) => self.set_entry(entry, value),
                None => return Err(Refused),
            },
            register::INITIAL_COUNT => self.set_initial_count(value, now),
            register::DIVIDE => self.set_divide(value, now),
            _ => return Err(Refused),
        }
        Ok(None)
    }

    /// A message that goes out, unless its vector is illegal.
    fn send(&mut self, message: Option<Message>) -> Option<Effect> {
        let message = message?;
        if message.vector().is_some_and(|vector| vector < FIRST_VECTOR) {
            self.record_error(error::ILLEGAL_SENT);
            return None;
        }
        Some(Effect::Send(message))
    }

    /// Reads an x2APIC register by its MSR.
    ///
    /// # Errors
    /// If the APIC is in another mode, or there is no such register that can be read.
    pub fn read_msr(&self, msr: u32, time: Time) -> Result<u64, Refused> {
        if self.mode() != ApicMode::X2apic {
            return Err(Refused);
        }
        match msr.checked_sub(*X2APIC_MSRS.start()).ok_or(Refused)? {
            register::ID => Ok(self.id.into()),
            register::COMMAND => Ok(self.command),
            register::LOGICAL_DESTINATION => Ok(self.x2apic_logical_id().into()),
            number => self.read(number, time.nanoseconds).map(u64::from),
        }
    }

    /// Writes an x2APIC register by its MSR. Returns the consequence for other chips.
    ///
    /// # Errors
    /// If the APIC is in another mode, there is no such register that can be written, or the value
    /// is reserved.
    pub fn write_msr(
        &mut self,
        msr: u32,
        value: u64,
        time: Time,
    ) -> Result<Option<Effect>, Refused> {
        if self.mode() != ApicMode::X2apic {
            return Err(Refused);
        }
        let number = msr.checked_sub(*X2APIC_MSRS.start()).ok_or(Refused)?;
        if number == register::COMMAND {
            if value & COMMAND_RESERVED != 0 {
                return Err(Refused);
            }
            self.command = value & !DELIVERY_STATUS;
            return Ok(self.send(Message::from_x2apic(self.command, self.id)));
        }
        let value = u32::try_from(value).map_err(|_| Refused)?;
        match number {
            register::SELF_INTERRUPT => {
                let vector = u8::try_from(value).map_err(|_| Refused)?;
                let delivery = crate::Delivery::Fixed(vector);
                let message =
                    Message { sender: Some(self.id), ..Message::new(Target::Sender, delivery) };
                Ok(self.send(Some(message)))
            }
            register::END_OF_INTERRUPT | register::ERROR_STATUS if value != 0 => Err(Refused),
            number => self.write(number, value, time.nanoseconds),
        }
    }

    /// Reads `width` bytes at `offset` of the page of xAPIC registers. Registers that do not exist
    /// read as zero; in other modes than xAPIC mode, and beyond the registers, all bits are ones,
    /// as on a bus without a device.
    pub fn read_mmio(&mut self, offset: u64, width: u8, time: Time) -> u32 {
        let mask = match width {
            1 => 0xff,
            2 => 0xffff,
            _ => u32::MAX,
        };
        let Some(number) = self.register_at(offset) else { return mask };
        let within = offset % STRIDE;
        if within.saturating_add(width.into()) > WORD {
            return 0;
        }
        let value = match number {
            register::ID => u32::from(self.xapic_id) << 24,
            register::ARBITRATION_PRIORITY => 0,
            register::LOGICAL_DESTINATION => self.logical_destination,
            register::DESTINATION_FORMAT => self.destination_format,
            register::COMMAND => low(self.command),
            register::COMMAND_HIGH => low(self.command >> 32),
            number => self.read(number, time.nanoseconds).unwrap_or_else(|Refused| {
                self.record_error(error::ILLEGAL_REGISTER);
                0
            }),
        };
        low(u64::from(value) >> within.saturating_mul(8)) & mask
    }

    /// Writes `width` bytes at `offset` of the page of xAPIC registers. Returns the consequence for
    /// other chips. Ignored unless it is 32 bits at a register's beginning (SDM vol. 3, 12.4.1.2).
    pub fn write_mmio(&mut self, offset: u64, width: u8, value: u32, time: Time) -> Option<Effect> {
        let number = self.register_at(offset)?;
        if u64::from(width) != WORD || !offset.is_multiple_of(STRIDE) {
            return None;
        }
        match number {
            register::ID => self.xapic_id = value.to_be_bytes()[0],
            register::LOGICAL_DESTINATION => self.logical_destination = value & 0xff00_0000,
            register::DESTINATION_FORMAT => self.destination_format = value | 0x0fff_ffff,
            register::COMMAND_HIGH => {
                self.command =
                    self.command & u64::from(u32::MAX) | u64::from(value & 0xff00_0000) << 32;
            }
            register::COMMAND => {
                self.command = self.command >> 32 << 32 | u64::from(value) & !DELIVERY_STATUS;
                return self.send(Message::from_xapic(self.command, self.id));
            }
            number => match self.write(number, value, time.nanoseconds) {
                Ok(effect) => return effect,
                Err(Refused) => self.record_error(error::ILLEGAL_REGISTER),
            },
        }
        None
    }

    /// The number of the register that an offset into the page lies in, in xAPIC mode.
    fn register_at(&self, offset: u64) -> Option<u32> {
        let exists = self.mode() == ApicMode::Xapic && offset < PAGE;
        exists.then(|| u32::try_from(offset / STRIDE).ok()).flatten()
    }
}
