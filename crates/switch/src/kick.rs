//! Kicks and timers, which reach the vCPU of the hypervisor that has the guest.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nerite_hypervisor::{Kick, KickTimer, Kicker};

use crate::pair::Pair;
use crate::switch::Switch;

/// Kicks one vCPU.
pub(crate) struct Kicks {
    pub(crate) kickers: Pair<Kicker>,
    pub(crate) switch: Arc<Switch>,
}

impl Kick for Kicks {
    /// A hand-over between the kick and the second look kicks both vCPUs; the first one then has a
    /// kick left, which ends the first step after it is handed back.
    fn kick(&self) {
        let side = self.switch.active();
        self.kickers.get(side).kick();
        let now = self.switch.active();
        if now != side {
            self.kickers.get(now).kick();
        }
    }
}

/// A timer for each vCPU: the one that does not run keeps a kick for later.
#[derive(Debug)]
pub(crate) struct Timers(pub(crate) Pair<Box<dyn KickTimer>>);

impl KickTimer for Timers {
    fn set(&self, first: Duration, interval: Duration) -> io::Result<()> {
        self.0.iter().try_for_each(|timer| timer.set(first, interval))
    }

    fn stop(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|timer| timer.stop())
    }
}
