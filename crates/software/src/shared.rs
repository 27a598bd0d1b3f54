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
    /// A restore that has begun.
    pub(crate) restored: Mutex<Option<Restored>>,
}

/// vCPUs that were restored and whose VM was not yet: their time-stamp counters resume together.
pub(crate) struct Restored {
    /// The moment at which the first of them was, in nanoseconds of the VM's clock.
    moment: u64,
    /// One bit for each.
    vcpus: u32,
}

impl Shared {
    /// Sets the next moment of the timer that all vCPUs share.
    pub(crate) fn set_board_timer(&self, next: Option<Instant>) {
        if let Some(timers) = &self.timers {
            timers.set_board(next);
        }
    }

    /// A vCPU is restored. Returns the moment at which the machine resumes, in nanoseconds of its
    /// clock. A second time means that the restore before it was given up.
    pub(crate) fn restore_vcpu(&self, index: u32) -> u64 {
        let bit = 1_u32.wrapping_shl(index);
        let mut restored = self.restored.lock();
        let begun = restored.take().filter(|restored| restored.vcpus & bit == 0);
        let begun = begun.unwrap_or_else(|| Restored { moment: self.clock.now(), vcpus: 0 });
        let moment = begun.moment;
        *restored = Some(Restored { moment, vcpus: begun.vcpus | bit });
        moment
    }

    /// The chips that all vCPUs share are restored, which ends it. Returns the moment at which the
    /// machine resumes.
    pub(crate) fn restore_chips(&self) -> u64 {
        self.restored.lock().take().map_or_else(|| self.clock.now(), |restored| restored.moment)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("ram", &self.ram).finish_non_exhaustive()
    }
}
