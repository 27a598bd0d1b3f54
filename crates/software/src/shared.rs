//! The part of a VM that its vCPUs share.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use nerite_irqchip::SharedChips;
use nerite_memory::GuestRam;
use nerite_x86::CodePages;
use parking_lot::Mutex;
use rand::rngs::StdRng;

use crate::clock::Clock;
use crate::coalesced::Ring;
use crate::controller::Controller;
use crate::doorbells::Bells;
use crate::signal::Signals;
use crate::timers::Timers;

/// Interrupt controllers.
#[derive(Debug)]
pub(crate) struct Chips {
    pub(crate) shared: Arc<SharedChips<Signals>>,
    pub(crate) controller: Arc<Controller>,
    /// `true` if the guest has an i8254.
    pub(crate) pit: bool,
}

/// All that the vCPUs of a VM share.
pub(crate) struct Shared {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) signals: Signals,
    pub(crate) clock: Clock,
    pub(crate) code: Arc<CodePages>,
    /// `None` if the VMM has the interrupt controllers.
    pub(crate) chips: Option<Chips>,
    pub(crate) bells: Arc<Bells>,
    pub(crate) ring: Arc<Ring>,
    /// Started with the VM if it has interrupt controllers, and otherwise with the first timer.
    pub(crate) timers: Option<Timers>,
    pub(crate) msr_exits: bool,
    /// Source of the seeds of vCPUs.
    pub(crate) random: Mutex<StdRng>,
    /// The moment at which the first of the vCPUs was restored, for the others: their time-stamp
    /// counters resume together.
    pub(crate) restored: Mutex<Option<u64>>,
}

impl Shared {
    /// Sets the next moment of the timer that all vCPUs share.
    pub(crate) fn set_board_timer(&self, next: Option<Instant>) {
        if let Some(timers) = &self.timers {
            timers.set_board(next);
        }
    }

    /// The moment at which a restored machine resumes, in nanoseconds of its clock.
    pub(crate) fn restored_at(&self) -> u64 {
        *self.restored.lock().get_or_insert_with(|| self.clock.now())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("ram", &self.ram).finish_non_exhaustive()
    }
}
