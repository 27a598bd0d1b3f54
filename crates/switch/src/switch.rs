//! The choice of the hypervisor that runs the guest.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nerite_event::Event;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::pair::{Pair, Side};

/// The choice between the hypervisors of a [`crate::Switchable`], for the thread that switches.
#[derive(Debug)]
pub struct Switch {
    names: Pair<&'static str>,
    is_second: AtomicBool,
    /// Shared by devices that raise interrupts, exclusive while the guest is handed over: what is
    /// raised meanwhile waits, and reaches the hypervisor that has the guest then.
    gate: RwLock<()>,
    /// Events of the devices that hold level-triggered lines.
    lowered: Mutex<Vec<Event>>,
    /// Lines that are raised by hand, one bit for each.
    raised: AtomicU32,
}

impl Switch {
    pub(crate) fn new(names: Pair<&'static str>, start: Side) -> Self {
        Self {
            names,
            is_second: AtomicBool::new(start == Side::Second),
            gate: RwLock::default(),
            lowered: Mutex::default(),
            raised: AtomicU32::new(0),
        }
    }

    /// The hypervisor that has the guest.
    pub fn active(&self) -> Side {
        if self.is_second.load(Ordering::Acquire) { Side::Second } else { Side::First }
    }

    /// Name of one of the hypervisors.
    pub const fn name(&self, side: Side) -> &'static str {
        self.names.get(side)
    }

    /// Hands the guest over to `side`. All vCPUs are paused: `save` saves them and the VM, and
    /// `restore` restores them, first the vCPUs, by the same objects, which reach the new
    /// hypervisor then. Interrupts that devices raise meanwhile wait, and lines are raised again
    /// afterwards.
    ///
    /// # Errors
    /// As `save` and `restore`. The guest goes on where it was then.
    pub fn hand_over<T, E>(
        &self,
        side: Side,
        save: impl FnOnce() -> Result<T, E>,
        restore: impl FnOnce(T) -> Result<(), E>,
    ) -> Result<(), E> {
        // Before the state is saved: an interrupt that came later would be in none of the two.
        let gate = self.gate.write();
        let state = save()?;
        let before = self.active();
        self.set(side);
        if let Err(error) = restore(state) {
            self.set(before);
            return Err(error);
        }
        drop(gate);
        // A device that still wants its interrupt raises it again.
        self.lowered.lock().iter().for_each(Event::signal);
        Ok(())
    }

    fn set(&self, side: Side) {
        self.is_second.store(side == Side::Second, Ordering::Release);
    }

    /// The hypervisor that has the guest, and keeps it as long as the guard lives.
    pub(crate) fn enter(&self) -> (Side, RwLockReadGuard<'_, ()>) {
        let guard = self.gate.read();
        (self.active(), guard)
    }

    pub(crate) fn add_level(&self, lowered: &Event) {
        self.lowered.lock().push(lowered.clone());
    }

    /// Takes note that a line is raised or lowered by hand.
    pub(crate) fn note_line(&self, line: u32, level: bool) {
        let bit = 1_u32.checked_shl(line).unwrap_or(0);
        if level {
            self.raised.fetch_or(bit, Ordering::AcqRel);
        } else {
            self.raised.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// Lines that are raised by hand.
    pub(crate) fn raised_lines(&self) -> impl Iterator<Item = u32> + use<> {
        let raised = self.raised.load(Ordering::Acquire);
        (0..u32::BITS).filter(move |line| raised.wrapping_shr(*line) & 1 == 1)
    }
}
