//! Waking and kicking a vCPU.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use nerite_hypervisor::Kick;
use nerite_irqchip::Wake;
use nerite_x86::Kicker;
use parking_lot::{Condvar, Mutex};

/// Maximum number of vCPUs of a VM.
pub(crate) const MAX_VCPUS: usize = 32;

/// The ways to get one vCPU's attention.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// A kick that has not ended a step yet.
    kicked: AtomicBool,
    /// `true` since the last wake-up that the vCPU has not seen.
    woken: Mutex<bool>,
    changed: Condvar,
    cpu: OnceLock<Kicker>,
}

impl Signal {
    /// Sets the handle that ends a run of the processor; once.
    pub(crate) fn set_cpu(&self, kicker: Kicker) {
        // There is one processor for each signal.
        let _ = self.cpu.set(kicker);
    }

    /// Makes the vCPU look at its interrupts, wherever it is.
    pub(crate) fn wake(&self) {
        *self.woken.lock() = true;
        self.changed.notify_all();
        if let Some(cpu) = self.cpu.get() {
            cpu.kick();
        }
    }

    /// Takes the kick, if there is one.
    pub(crate) fn take_kick(&self) -> bool {
        self.is_kicked() && self.kicked.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn is_kicked(&self) -> bool {
        self.kicked.load(Ordering::Acquire)
    }

    /// `true` since the last wake-up that the vCPU has not seen.
    pub(crate) fn is_woken(&self) -> bool {
        *self.woken.lock()
    }

    /// Takes note that the vCPU is about to look at its interrupts.
    pub(crate) fn looked(&self) {
        *self.woken.lock() = false;
    }

    /// Waits for a wake-up after the last [`Self::looked`], or until a moment.
    pub(crate) fn wait(&self, until: Option<Instant>) {
        let mut woken = self.woken.lock();
        while !*woken {
            match until {
                None => self.changed.wait(&mut woken),
                Some(until) => {
                    if self.changed.wait_until(&mut woken, until).timed_out() {
                        return;
                    }
                }
            }
        }
    }
}

impl Kick for Signal {
    fn kick(&self) {
        self.kicked.store(true, Ordering::Release);
        self.wake();
    }
}

/// The signals of all vCPUs of a VM.
#[derive(Debug, Clone)]
pub(crate) struct Signals(Arc<[Arc<Signal>]>);

impl Signals {
    pub(crate) fn new(vcpus: u32) -> Self {
        Self((0..vcpus).map(|_| Arc::default()).collect())
    }

    /// `true` for a VM with one vCPU.
    pub(crate) fn is_single(&self) -> bool {
        self.0.len() == 1
    }

    pub(crate) fn of(&self, vcpu: u32) -> Option<&Arc<Signal>> {
        self.0.get(usize::try_from(vcpu).ok()?)
    }
}

impl Wake for Signals {
    fn wake(&self, vcpu: u32) {
        if let Some(signal) = self.of(vcpu) {
            signal.wake();
        }
    }
}
