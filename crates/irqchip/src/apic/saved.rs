//! The saved state of a local APIC.

use super::local::{EXT_INT, Entry, MASKED};
use super::timer::{Timer, is_counting_mode, is_deadline_mode};
use super::{
    ApicConfig, ENABLED, Events, FIRST_VECTOR, LocalApic, MAX_NMIS, SUPPRESS_BROADCAST, Vectors,
    error,
};
use crate::time::Time;
use nerite_saved::{RestoreError, check_version, refuse as refuse_field};

/// Version of [`SavedLocalApic`].
pub const APIC_VERSION: u32 = 1;

/// State of a local APIC, apart from its [`ApicConfig`].
///
/// Registers as the guest sees them (Intel SDM vol. 3, chapter 12), with times relative to the
/// save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedLocalApic {
    /// [`APIC_VERSION`].
    pub version: u32,
    /// The initial APIC ID.
    pub id: u32,
    /// `IA32_APIC_BASE`.
    pub base: u64,
    /// The ID in xAPIC mode, which the guest can change.
    pub xapic_id: u8,
    /// Task priority.
    pub task_priority: u8,
    /// Logical destination in xAPIC mode.
    pub logical_destination: u32,
    /// Destination format in xAPIC mode.
    pub destination_format: u32,
    /// Spurious-interrupt vector.
    pub spurious: u32,
    /// Interrupt request register: 32 vectors a word.
    pub requested: [u32; 8],
    /// In-service register.
    pub in_service: [u32; 8],
    /// Trigger mode register.
    pub level: [u32; 8],
    /// Error status.
    pub errors: u32,
    /// Errors since that was last written.
    pub new_errors: u32,
    /// Interrupt command.
    pub command: u64,
    /// Local vector table: timer, thermal sensor, performance counter, LINT0, LINT1, error.
    pub entries: [u32; 6],
    /// Initial count of the timer.
    pub initial_count: u32,
    /// Divide configuration.
    pub divide: u32,
    /// Nanoseconds from the save until the count comes to zero; `None` if it does not run.
    pub remaining: Option<u64>,
    /// `IA32_TSC_DEADLINE`, a value of the guest's time-stamp counter.
    pub tsc_deadline: u64,
    /// Levels of LINT0 and LINT1.
    pub pins: [bool; 2],
    /// An INIT that the processor has not seen.
    pub init: bool,
    /// A start message that the processor has not seen.
    pub startup: Option<u8>,
    /// Non-maskable interrupts that the processor has not taken.
    pub nmis: u8,
}

impl SavedLocalApic {
    /// Takes back an interrupt that the processor has acknowledged and not delivered: it is
    /// requested again. Returns `false` if it is not in service here, so that it came from another
    /// chip.
    pub fn withdraw(&mut self, vector: u8) -> bool {
        let mut in_service = Vectors::from_words(self.in_service);
        if in_service.highest() != Some(vector) {
            return false;
        }
        in_service.remove(vector);
        let mut requested = Vectors::from_words(self.requested);
        requested.insert(vector);
        (self.in_service, self.requested) = (in_service.words(), requested.words());
        true
    }
}

impl LocalApic {
    /// The state at this moment.
    #[must_use]
    pub fn save(&self, time: Time) -> SavedLocalApic {
        SavedLocalApic {
            version: APIC_VERSION,
            id: self.id,
            base: self.base,
            xapic_id: self.xapic_id,
            task_priority: self.task_priority.to_le_bytes()[0],
            logical_destination: self.logical_destination,
            destination_format: self.destination_format,
            spurious: self.spurious,
            requested: self.requested.words(),
            in_service: self.in_service.words(),
            level: self.level.words(),
            errors: self.errors,
            new_errors: self.new_errors,
            command: self.command,
            entries: self.entries,
            initial_count: self.timer.initial_count,
            divide: self.timer.divide,
            remaining: self
                .timer
                .deadline
                .map(|deadline| deadline.saturating_sub(time.nanoseconds)),
            tsc_deadline: self.timer.tsc_deadline,
            pins: self.pins,
            init: self.events.init,
            startup: self.events.startup,
            nmis: self.events.nmis,
        }
    }

    /// The APIC with a saved state, which resumes at this moment.
    ///
    /// # Errors
    /// If the state is of another version, or not one that an APIC with this configuration can
    /// have.
    pub fn restore(
        config: ApicConfig,
        saved: &SavedLocalApic,
        time: Time,
    ) -> Result<Self, RestoreError> {
        check_version("local APIC", saved.version, APIC_VERSION)?;
        let mut apic = Self::new(saved.id, config);
        apic.check(saved)?;
        apic.base = saved.base;
        apic.xapic_id = saved.xapic_id;
        apic.task_priority = saved.task_priority.into();
        apic.logical_destination = saved.logical_destination;
        apic.destination_format = saved.destination_format;
        apic.spurious = saved.spurious;
        apic.requested = Vectors::from_words(saved.requested);
        apic.in_service = Vectors::from_words(saved.in_service);
        apic.level = Vectors::from_words(saved.level);
        apic.errors = saved.errors;
        apic.new_errors = saved.new_errors;
        apic.command = saved.command;
        apic.entries = saved.entries;
        apic.timer = Timer {
            initial_count: saved.initial_count,
            divide: saved.divide,
            deadline: saved.remaining.map(|left| time.nanoseconds.saturating_add(left)),
            tsc_deadline: saved.tsc_deadline,
        };
        apic.pins = saved.pins;
        apic.events = Events { init: saved.init, startup: saved.startup, nmis: saved.nmis };
        Ok(apic)
    }

    /// Takes over a saved state of an APIC with this one's ID, and resumes at this moment.
    ///
    /// # Errors
    /// As [`Self::restore`]; the APIC is unchanged then.
    pub fn restore_in_place(
        &mut self,
        saved: &SavedLocalApic,
        time: Time,
    ) -> Result<(), RestoreError> {
        refuse_field("local APIC", "id", saved.id != self.id)?;
        *self = Self::restore(self.config, saved, time)?;
        Ok(())
    }

    /// Checks a saved state against what the registers can hold.
    fn check(&self, saved: &SavedLocalApic) -> Result<(), RestoreError> {
        let refuse = |field, is_bad| refuse_field("local APIC", field, is_bad);
        refuse("base", self.check_base(saved.base).is_err())?;
        refuse("logical_destination", saved.logical_destination & 0x00ff_ffff != 0)?;
        refuse("destination_format", saved.destination_format & 0x0fff_ffff != 0x0fff_ffff)?;
        let extra = if self.config.has_directed_eoi { SUPPRESS_BROADCAST } else { 0 };
        refuse("spurious", saved.spurious & !(0x3ff | extra) != 0)?;
        let legal = !((1_u32 << FIRST_VECTOR) - 1);
        for (field, [first, ..]) in [
            ("requested", saved.requested),
            ("in_service", saved.in_service),
            ("level", saved.level),
        ] {
            refuse(field, first & !legal != 0)?;
        }
        refuse("errors", (saved.errors | saved.new_errors) & !error::ALL != 0)?;
        for (entry, value) in Entry::ALL.into_iter().zip(saved.entries) {
            refuse("entries", value & !self.valid_entry_bits(entry) != 0)?;
        }
        refuse("divide", saved.divide & !0b1011 != 0)?;
        let [timer, ..] = saved.entries;
        refuse("tsc_deadline", saved.tsc_deadline != 0 && !is_deadline_mode(timer))?;
        let runs = saved.initial_count != 0 && is_counting_mode(timer);
        refuse("remaining", saved.remaining.is_some() && !runs)?;
        refuse("nmis", saved.nmis > MAX_NMIS)?;
        let is_disabled = saved.spurious & ENABLED == 0;
        // The one entry that is unmasked while software disables the APIC is LINT0 as a reset
        // leaves it.
        let is_open = |entry: &u32| entry & MASKED == 0 && *entry != EXT_INT;
        refuse("entries", is_disabled && saved.entries.iter().any(is_open))
    }
}
