//! A local APIC as a state machine (Intel SDM vol. 3, chapter 12).

mod base;
mod local;
mod registers;
mod saved;
mod timer;
mod vectors;

pub use base::{ApicMode, BASE_ADDRESS, BASE_RESET};
pub use local::{LocalSource, Pin};
pub use saved::{APIC_VERSION, SavedLocalApic};
pub use timer::MIN_PERIOD;
pub(crate) use vectors::Vectors;

use local::ENTRIES;
use timer::Timer;

use crate::message::{Delivery, Message, Target};

/// The MSRs of the x2APIC registers (Intel SDM vol. 3, 12.12.1.2).
pub const X2APIC_MSRS: std::ops::RangeInclusive<u32> = 0x800..=0x8ff;

/// Vectors below 16 are illegal (SDM vol. 3, 12.5.2).
const FIRST_VECTOR: u8 = 16;

/// Bits of the error status register (SDM vol. 3, 12.5.3).
mod error {
    pub(super) const ILLEGAL_SENT: u32 = 1 << 5;
    pub(super) const ILLEGAL_RECEIVED: u32 = 1 << 6;
    pub(super) const ILLEGAL_REGISTER: u32 = 1 << 7;
    pub(super) const ALL: u32 = ILLEGAL_SENT | ILLEGAL_RECEIVED | ILLEGAL_REGISTER;
}

/// Bits of the spurious-interrupt vector register (SDM vol. 3, 12.9): enabled by software, and no
/// EOI broadcasts.
const ENABLED: u32 = 1 << 8;
const SUPPRESS_BROADCAST: u32 = 1 << 12;

/// The most NMIs that wait: one that is about to be taken, and one that is latched behind it.
const MAX_NMIS: u8 = 2;

/// An access of a register that does not exist in the APIC's mode, or of a reserved value: a
/// general protection fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such APIC register, or a reserved value")]
pub struct Refused;

/// Properties of a local APIC that the guest's CPUID leaves promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApicConfig {
    /// The bootstrap processor's: its `IA32_APIC_BASE` says so, and its pin LINT0 takes the 8259
    /// pair's interrupts after a reset, as in KVM.
    pub is_bootstrap: bool,
    /// x2APIC mode (CPUID.01H:ECX.21).
    pub has_x2apic: bool,
    /// The timer's TSC deadline mode (CPUID.01H:ECX.24).
    pub has_tsc_deadline: bool,
    /// EOI broadcasts can be suppressed: for machines whose I/O APIC has an EOI register.
    pub has_directed_eoi: bool,
    /// Bits of a guest-physical address (CPUID.80000008H:EAX), 36 to 52.
    pub address_bits: u8,
}

impl ApicConfig {
    /// All of it but directed EOI, for the processor with this initial APIC ID; 0 is the bootstrap
    /// processor.
    #[must_use]
    pub const fn of(id: u32) -> Self {
        Self {
            is_bootstrap: id == 0,
            has_x2apic: true,
            has_tsc_deadline: true,
            has_directed_eoi: false,
            address_bits: 52,
        }
    }
}

/// Consequence of an access, beyond the APIC itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// An interrupt message is sent.
    Send(Message),
    /// The end of a level-triggered interrupt with this vector is broadcast to the I/O APICs (SDM
    /// vol. 3, 12.8.5).
    EndOfInterrupt(u8),
}

/// Events that wait for the processor, besides interrupts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Events {
    /// INIT: [`LocalApic::take_events`] has reset the APIC, the caller resets the processor. Comes
    /// before the others.
    pub init: bool,
    /// A start message with its page; without effect on a processor that does not wait for one.
    pub startup: Option<u8>,
    /// Non-maskable interrupts, at most 2.
    pub nmis: u8,
}

/// One local APIC.
///
/// Registers are accessed with [`Self::read_mmio`] and [`Self::write_mmio`] in xAPIC mode, with
/// [`Self::read_msr`] and [`Self::write_msr`] in x2APIC mode; both modes' base address register is
/// [`Self::write_base`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalApic {
    /// The initial APIC ID, which is the x2APIC ID, too.
    id: u32,
    config: ApicConfig,
    base: u64,
    xapic_id: u8,
    task_priority: u32,
    logical_destination: u32,
    destination_format: u32,
    spurious: u32,
    requested: Vectors,
    in_service: Vectors,
    /// The trigger mode register: vectors that were level-triggered when they were accepted.
    level: Vectors,
    errors: u32,
    /// Errors since the register was last written.
    new_errors: u32,
    command: u64,
    /// The local vector table, from the timer's entry on.
    entries: [u32; ENTRIES],
    timer: Timer,
    /// Levels of LINT0 and LINT1.
    pins: [bool; 2],
    events: Events,
}

impl LocalApic {
    /// The APIC with this ID after power-up, in xAPIC mode.
    #[must_use]
    pub fn new(id: u32, config: ApicConfig) -> Self {
        let bootstrap = if config.is_bootstrap { base::BOOTSTRAP } else { 0 };
        let mut apic = Self {
            id,
            config,
            base: BASE_RESET | bootstrap,
            xapic_id: id.to_le_bytes()[0],
            task_priority: 0,
            logical_destination: 0,
            destination_format: u32::MAX,
            spurious: 0xff,
            requested: Vectors::NONE,
            in_service: Vectors::NONE,
            level: Vectors::NONE,
            errors: 0,
            new_errors: 0,
            command: 0,
            entries: [0; ENTRIES],
            timer: Timer::STOPPED,
            pins: [false; 2],
            events: Events::default(),
        };
        apic.reset_registers();
        apic
    }

    /// The registers as INIT leaves them: all as after power-up but the base and the ID (SDM vol.
    /// 3, 12.4.7.3).
    fn reset_registers(&mut self) {
        self.task_priority = 0;
        self.logical_destination = 0;
        self.destination_format = u32::MAX;
        self.spurious = 0xff;
        self.requested = Vectors::NONE;
        self.in_service = Vectors::NONE;
        self.level = Vectors::NONE;
        self.errors = 0;
        self.new_errors = 0;
        self.command = 0;
        self.entries = local::reset_entries(self.config.is_bootstrap);
        self.timer = Timer::STOPPED;
    }

    /// The initial APIC ID, which is the x2APIC ID and never changes.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Returns `true` if the APIC accepts interrupts: it is enabled by its base register and by
    /// software.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.mode() != ApicMode::Disabled && self.spurious & ENABLED != 0
    }

    /// Bits 7:4 of the task priority, which CR8 holds, too.
    #[must_use]
    pub fn priority_class(&self) -> u8 {
        let [priority, ..] = self.task_priority.to_le_bytes();
        priority >> 4
    }

    /// Takes over CR8 from the processor. The task priority's lower bits, which CR8 does not have,
    /// stay if the class is the same.
    pub fn set_priority_class(&mut self, class: u8) {
        if class != self.priority_class() {
            self.task_priority = u32::from(class & 0xf) << 4;
        }
    }

    /// The processor priority: the higher one of the task's and of the interrupt in service (SDM
    /// vol. 3, 12.8.3.1).
    #[must_use]
    pub fn processor_priority(&self) -> u8 {
        let serving = self.in_service.highest().unwrap_or(0) & 0xf0;
        let [task, ..] = self.task_priority.to_le_bytes();
        if task & 0xf0 >= serving { task } else { serving }
    }

    /// The interrupt that the processor is to take next: the highest one requested, if its class is
    /// above the processor priority.
    ///
    /// Interrupts that were accepted before software disabled the APIC are still taken (SDM vol. 3,
    /// 12.4.7.2).
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        let vector = self.requested.highest()?;
        (vector & 0xf0 > self.processor_priority() & 0xf0).then_some(vector)
    }

    /// The processor takes the interrupt that is [pending](Self::pending): returns its vector,
    /// which is in service from now on.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        self.requested.remove(vector);
        self.in_service.insert(vector);
        Some(vector)
    }

    /// Returns `true` if events other than interrupts wait for the processor.
    #[must_use]
    pub const fn has_events(&self) -> bool {
        self.events.init || self.events.startup.is_some() || self.events.nmis > 0
    }

    /// Events that wait, without taking them.
    #[must_use]
    pub const fn events(&self) -> Events {
        self.events
    }

    /// Takes the events that wait for the processor. After an INIT the registers are reset;
    /// interrupts pending then are gone.
    pub fn take_events(&mut self) -> Events {
        let events = std::mem::take(&mut self.events);
        if events.init {
            self.reset_registers();
        }
        events
    }

    /// Returns `true` if `message` addresses this APIC. One that its base register disables gets no
    /// message at all.
    #[must_use]
    pub fn is_addressed(&self, message: &Message) -> bool {
        let is_sender = message.sender == Some(self.id);
        let mode = self.mode();
        let is_meant = match message.target {
            Target::All => true,
            Target::Sender => is_sender,
            Target::Others => !is_sender,
            // An ID that xAPIC mode cannot express means the initial one.
            Target::Physical(id) if mode == ApicMode::X2apic || id > 0xff => id == self.id,
            Target::Physical(id) => id == u32::from(self.xapic_id),
            Target::Logical(ids) => self.has_logical_id(ids),
        };
        is_meant && mode != ApicMode::Disabled
    }

    fn has_logical_id(&self, ids: u32) -> bool {
        if self.mode() == ApicMode::X2apic {
            let own = self.x2apic_logical_id();
            return own >> 16 == ids >> 16 && own & ids & 0xffff != 0;
        }
        let own = self.logical_destination >> 24;
        match self.destination_format >> 28 {
            0xf => own & ids != 0,
            0 => own >> 4 == ids >> 4 && own & ids & 0xf != 0,
            _ => false,
        }
    }

    /// Accepts a message that [addresses](Self::is_addressed) this APIC, or whose target the caller
    /// has chosen. Returns `true` if it is accepted: the processor is then to be woken.
    pub fn accept(&mut self, delivery: Delivery, is_level: bool) -> bool {
        match delivery {
            Delivery::Fixed(vector) | Delivery::LowestPriority(vector) => {
                self.accept_interrupt(vector, is_level)
            }
            Delivery::Nmi => {
                self.events.nmis = self.events.nmis.saturating_add(1).min(MAX_NMIS);
                true
            }
            // A start message that came before is lost with the state that it was for.
            Delivery::Init => {
                self.events = Events { init: true, startup: None, nmis: 0 };
                true
            }
            Delivery::Startup(page) => {
                self.events.startup = Some(page);
                true
            }
        }
    }

    fn accept_interrupt(&mut self, vector: u8, is_level: bool) -> bool {
        if !self.is_enabled() {
            return false;
        }
        if vector < FIRST_VECTOR {
            self.record_error(error::ILLEGAL_RECEIVED);
            return false;
        }
        self.requested.insert(vector);
        self.level.set(vector, is_level);
        true
    }

    /// The end of the interrupt in service with the highest priority (SDM vol. 3, 12.8.5).
    fn end_of_interrupt(&mut self) -> Option<Effect> {
        let vector = self.in_service.highest()?;
        self.in_service.remove(vector);
        self.end_pin_interrupt(vector);
        let is_broadcast = self.level.contains(vector) && self.spurious & SUPPRESS_BROADCAST == 0;
        is_broadcast.then_some(Effect::EndOfInterrupt(vector))
    }

    /// Notes an error for the error status register, and requests the error interrupt for a new
    /// one.
    fn record_error(&mut self, bit: u32) {
        let is_new = self.new_errors & bit == 0;
        self.new_errors |= bit;
        if is_new {
            self.deliver_error();
        }
    }
}

#[cfg(test)]
#[path = "apic/apic_test.rs"]
mod tests;
