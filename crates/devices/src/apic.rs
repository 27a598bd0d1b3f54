//! A local APIC as a state machine (Intel SDM vol. 3, chapter 12), for machines whose interrupt controller is not the host
//! kernel's.
//!
//! It is plain data: time comes in as nanoseconds since any beginning, and messages to other processors go out as
//! [`Message`]. What it has: fixed interrupts with priorities, the task and processor priority, the timer in its one-shot and
//! periodic modes with a clock of 1 GHz before the divider, messages between processors, both register interfaces (x2APIC and
//! xAPIC). What it has not: the TSC deadline mode (CPUID must not offer it), logical addresses in xAPIC mode other than the
//! flat model, level-triggered interrupts, and local pins: nothing is connected to them.

mod message;
mod vectors;

pub use message::{Delivery, Message, Target};
use vectors::Vectors;

/// The first MSR of the x2APIC registers, and how many there are.
pub const X2APIC_MSRS: std::ops::RangeInclusive<u32> = 0x800..=0x8ff;

/// Registers by their number: the x2APIC MSR less 0x800, or the xAPIC offset divided by 16 (SDM table 12-6).
mod register {
    pub(super) const ID: u32 = 0x02;
    pub(super) const VERSION: u32 = 0x03;
    pub(super) const TASK_PRIORITY: u32 = 0x08;
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
    pub(super) const TIMER: u32 = 0x32;
    pub(super) const THERMAL: u32 = 0x33;
    pub(super) const ERROR: u32 = 0x37;
    pub(super) const INITIAL_COUNT: u32 = 0x38;
    pub(super) const CURRENT_COUNT: u32 = 0x39;
    pub(super) const DIVIDE: u32 = 0x3e;
    pub(super) const SELF_INTERRUPT: u32 = 0x3f;
}

/// Version 0x14 of the integrated APIC, with six entries in its local vector table.
const VERSION: u32 = 0x14 | 5 << 16;
/// A local vector table entry is masked, and what of one can be written.
const MASKED: u32 = 1 << 16;
const ENTRY_BITS: u32 = 0x0001_a7ff;
/// The timer's entry: periodic mode, and what can be written.
const PERIODIC: u32 = 1 << 17;
const TIMER_BITS: u32 = MASKED | PERIODIC | 0xff;
/// The spurious-interrupt vector register: the APIC is enabled by software.
const ENABLED: u32 = 1 << 8;
/// Vectors below 16 are illegal (SDM vol. 3, 12.5.2), and the error of one that is sent or received.
const FIRST_VECTOR: u8 = 16;
const ILLEGAL_SENT: u32 = 1 << 5;
const ILLEGAL_RECEIVED: u32 = 1 << 6;

/// An access of a register that there is not, or of a reserved value: in x2APIC mode a general protection fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// One local APIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalApic {
    id: u32,
    task_priority: u32,
    logical_destination: u32,
    destination_format: u32,
    spurious: u32,
    requested: Vectors,
    in_service: Vectors,
    errors: u32,
    /// Errors since the register was last written.
    new_errors: u32,
    command: u64,
    /// The local vector table, from the timer's entry on.
    entries: [u32; 6],
    initial_count: u32,
    divide: u32,
    /// When the timer comes to zero next.
    deadline: Option<u64>,
}

impl LocalApic {
    /// The APIC with this id after a reset.
    #[must_use]
    pub const fn new(id: u32) -> Self {
        Self {
            id,
            task_priority: 0,
            logical_destination: 0,
            destination_format: u32::MAX,
            spurious: 0xff,
            requested: Vectors::NONE,
            in_service: Vectors::NONE,
            errors: 0,
            new_errors: 0,
            command: 0,
            entries: [MASKED; 6],
            initial_count: 0,
            divide: 0,
            deadline: None,
        }
    }

    /// Its id, which INIT does not change.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Bits 7:4 of the task priority, which CR8 holds, too.
    #[must_use]
    pub fn priority_class(&self) -> u8 {
        u8::try_from(self.task_priority >> 4 & 0xf).unwrap_or(0)
    }

    /// The guest has written CR8.
    pub fn set_priority_class(&mut self, class: u8) {
        // The lower bits stay where nothing changes: CR8 does not have them.
        if class != self.priority_class() {
            self.task_priority = u32::from(class & 0xf) << 4;
        }
    }

    /// The processor priority: the higher one of the task's and of what is in service (SDM vol. 3, 12.8.3.1).
    fn processor_priority(&self) -> u32 {
        let serving = u32::from(self.in_service.highest().unwrap_or(0)) & 0xf0;
        if self.task_priority & 0xf0 >= serving { self.task_priority & 0xff } else { serving }
    }

    /// Takes in a fixed interrupt.
    pub fn request(&mut self, vector: u8) {
        if vector < FIRST_VECTOR {
            self.new_errors |= ILLEGAL_RECEIVED;
        } else if self.spurious & ENABLED != 0 {
            self.requested.insert(vector);
        }
    }

    /// The interrupt that the processor is to take next, if there is one above its priority.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        let vector = self.requested.highest()?;
        (u32::from(vector) & 0xf0 > self.processor_priority() & 0xf0).then_some(vector)
    }

    /// The processor takes what is [pending](Self::pending).
    pub fn begin(&mut self, vector: u8) {
        self.requested.remove(vector);
        self.in_service.insert(vector);
    }

    /// When the timer needs [`Self::advance`] next.
    #[must_use]
    pub const fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// It is `now`: requests the timer's interrupt if its time has come. Periods that nobody has seen count as one.
    pub fn advance(&mut self, now: u64) {
        let Some(deadline) = self.deadline.filter(|deadline| *deadline <= now) else { return };
        let [timer, ..] = self.entries;
        if timer & MASKED == 0 {
            self.request(timer.to_le_bytes()[0]);
        }
        self.deadline = (timer & PERIODIC != 0).then(|| {
            let period = self.period().max(1);
            let missed = now.saturating_sub(deadline).checked_div(period).unwrap_or(0);
            deadline.saturating_add(missed.saturating_add(1).saturating_mul(period))
        });
    }

    /// How many ticks of the clock one count takes (SDM figure 12-10).
    const fn divider(&self) -> u64 {
        match self.divide & 0b1011 {
            0b0000 => 2,
            0b0001 => 4,
            0b0010 => 8,
            0b0011 => 16,
            0b1000 => 32,
            0b1001 => 64,
            0b1010 => 128,
            _ => 1,
        }
    }

    /// Nanoseconds from the initial count to zero.
    fn period(&self) -> u64 {
        u64::from(self.initial_count).saturating_mul(self.divider())
    }

    fn start_timer(&mut self, now: u64) {
        self.deadline = (self.initial_count != 0).then(|| now.saturating_add(self.period()));
    }

    fn current_count(&self, now: u64) -> u32 {
        let left = self.deadline.map_or(0, |deadline| deadline.saturating_sub(now));
        u32::try_from(left.checked_div(self.divider()).unwrap_or(0)).unwrap_or(u32::MAX)
    }

    /// Reads the register of this number at the time `now`.
    ///
    /// # Errors
    /// If there is none that can be read.
    pub fn read(&self, number: u32, now: u64) -> Result<u32, Refused> {
        Ok(match number {
            register::ID => self.id,
            register::VERSION => VERSION,
            register::TASK_PRIORITY => self.task_priority,
            register::PROCESSOR_PRIORITY => self.processor_priority(),
            register::LOGICAL_DESTINATION => self.logical_destination,
            register::DESTINATION_FORMAT => self.destination_format,
            register::SPURIOUS => self.spurious,
            register::IN_SERVICE..=0x17 => self.in_service.word(number.wrapping_sub(register::IN_SERVICE)),
            register::TRIGGER_MODE..=0x1f => 0,
            register::REQUESTED..=0x27 => self.requested.word(number.wrapping_sub(register::REQUESTED)),
            register::ERROR_STATUS => self.errors,
            register::COMMAND => {
                self.command.to_le_bytes().first_chunk().map_or(0, |low| u32::from_le_bytes(*low))
            }
            register::COMMAND_HIGH => u32::try_from(self.command >> 32).unwrap_or(0),
            register::TIMER..=register::ERROR => {
                let at = usize::try_from(number.wrapping_sub(register::TIMER)).unwrap_or(usize::MAX);
                self.entries.get(at).copied().ok_or(Refused)?
            }
            register::INITIAL_COUNT => self.initial_count,
            register::CURRENT_COUNT => self.current_count(now),
            register::DIVIDE => self.divide,
            _ => return Err(Refused),
        })
    }

    /// Writes the register of this number at the time `now`. Gives the message that this sends, if it does.
    ///
    /// # Errors
    /// If there is none that can be written.
    pub fn write(&mut self, number: u32, value: u32, now: u64) -> Result<Option<Message>, Refused> {
        match number {
            register::TASK_PRIORITY => self.task_priority = value & 0xff,
            register::END_OF_INTERRUPT => self.in_service.remove_highest(),
            register::LOGICAL_DESTINATION => self.logical_destination = value & 0xff00_0000,
            register::DESTINATION_FORMAT => self.destination_format = value | 0x0fff_ffff,
            register::SPURIOUS => self.spurious = value & 0x1ff,
            register::ERROR_STATUS => self.errors = std::mem::take(&mut self.new_errors),
            register::COMMAND_HIGH => {
                self.command = self.command & u64::from(u32::MAX) | u64::from(value) << 32;
            }
            // In xAPIC mode the destination is an id of 8 bits.
            register::COMMAND => {
                self.command = self.command >> 32 << 32 | u64::from(value);
                return Ok(self.send(Message::from_xapic(self.command, self.id)));
            }
            register::TIMER => self.set_entry(0, value & TIMER_BITS),
            register::THERMAL..=register::ERROR => {
                let at = usize::try_from(number.wrapping_sub(register::TIMER)).unwrap_or(usize::MAX);
                self.set_entry(at, value & ENTRY_BITS);
            }
            register::INITIAL_COUNT => {
                self.initial_count = value;
                self.start_timer(now);
            }
            register::DIVIDE => self.divide = value & 0b1011,
            _ => return Err(Refused),
        }
        Ok(None)
    }

    fn set_entry(&mut self, at: usize, value: u32) {
        if let Some(entry) = self.entries.get_mut(at) {
            *entry = value;
        }
    }

    /// A message that goes out, unless its vector is illegal.
    fn send(&mut self, message: Option<Message>) -> Option<Message> {
        if let Some(Message { delivery: Delivery::Fixed(vector), .. }) = message
            && vector < FIRST_VECTOR
        {
            self.new_errors |= ILLEGAL_SENT;
            return None;
        }
        message
    }

    /// Reads an x2APIC register by its MSR.
    ///
    /// # Errors
    /// If there is none that can be read in x2APIC mode.
    pub fn read_msr(&self, msr: u32, now: u64) -> Result<u64, Refused> {
        match msr.checked_sub(*X2APIC_MSRS.start()).ok_or(Refused)? {
            register::COMMAND => Ok(self.command),
            // The cluster and the place in it (SDM vol. 3, 12.12.10.2).
            register::LOGICAL_DESTINATION => {
                Ok(u64::from(self.id >> 4) << 16 | 1_u64.checked_shl(self.id & 0xf).unwrap_or(0))
            }
            register::COMMAND_HIGH | register::DESTINATION_FORMAT => Err(Refused),
            number => self.read(number, now).map(u64::from),
        }
    }

    /// Writes an x2APIC register by its MSR. Gives the message that this sends, if it does.
    ///
    /// # Errors
    /// If there is none that can be written in x2APIC mode, or the value is not one for it.
    pub fn write_msr(&mut self, msr: u32, value: u64, now: u64) -> Result<Option<Message>, Refused> {
        let number = msr.checked_sub(*X2APIC_MSRS.start()).ok_or(Refused)?;
        if number == register::COMMAND {
            self.command = value;
            return Ok(self.send(Message::from_x2apic(value, self.id)));
        }
        let value = u32::try_from(value).map_err(|_| Refused)?;
        match number {
            register::SELF_INTERRUPT => {
                let delivery = Delivery::Fixed(value.to_le_bytes()[0]);
                Ok(self.send(Some(Message { target: Target::One(self.id), delivery })))
            }
            register::END_OF_INTERRUPT | register::ERROR_STATUS if value != 0 => Err(Refused),
            register::COMMAND_HIGH | register::DESTINATION_FORMAT | register::LOGICAL_DESTINATION => {
                Err(Refused)
            }
            number => self.write(number, value, now),
        }
    }

    /// Reads 32 bits at `offset` of the page of xAPIC registers. What is not there reads as zero.
    #[must_use]
    pub fn read_page(&self, offset: u64, now: u64) -> u32 {
        match u32::try_from(offset >> 4) {
            Ok(register::ID) => self.id.checked_shl(24).unwrap_or(0),
            Ok(number) => self.read(number, now).unwrap_or(0),
            Err(_) => 0,
        }
    }

    /// Writes 32 bits at `offset` of the page of xAPIC registers. Gives the message that this sends, if it does.
    pub fn write_page(&mut self, offset: u64, value: u32, now: u64) -> Option<Message> {
        // What is not there, or cannot be written, takes no notice.
        self.write(u32::try_from(offset >> 4).ok()?, value, now).ok().flatten()
    }

    /// Whether a message for `target` is for this APIC. `from` is the sender's id.
    #[must_use]
    pub fn is_meant(&self, target: Target, from: u32) -> bool {
        match target {
            Target::One(id) => id == self.id,
            Target::All => true,
            Target::Others => self.id != from,
            Target::Logical { cluster: Some(cluster), places } => {
                cluster == self.id >> 4 && places & 1_u32.checked_shl(self.id & 0xf).unwrap_or(0) != 0
            }
            Target::Logical { cluster: None, places } => places & self.logical_destination >> 24 != 0,
        }
    }
}

#[cfg(test)]
#[path = "apic/apic_test.rs"]
mod tests;
