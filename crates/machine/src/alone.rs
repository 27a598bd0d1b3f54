//! Running the only vCPU on the thread that waits for the machine.
//!
//! A thread costs a dozen system calls, and some 10 KiB that nobody needs. With one there is nobody to wait for signals and times,
//! so both come to the vCPU: a signal handler ends the machine through an [`Interrupter`], and a timer kicks the vCPU, which
//! then does the [`Chores`] that another thread would do.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nerite_devices::Console;
use nerite_hypervisor::KickTimer;
use nerite_vcpu::{Kicker, RunState, Vcpu};

use crate::Error;
use crate::dispatch::End;
use crate::halts::{self, HaltWatch};

/// How often a vCPU is kicked that waits for the host, until it sees that it is to stop.
const KICK_AGAIN: Duration = Duration::from_millis(10);
/// When to try again to write a line that the sink did not take.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// The timer of the vCPU, once the vCPU is about to run.
pub(crate) type Timer = Arc<OnceLock<Box<dyn KickTimer>>>;

/// Ends a machine from within a signal handler.
#[derive(Debug, Clone)]
pub struct Interrupter {
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) stop_event: Arc<OwnedFd>,
    pub(crate) console: Arc<Console>,
    pub(crate) kicker: Kicker,
    pub(crate) timer: Timer,
}

impl Interrupter {
    /// Ends the machine, as a signal that ends the run does: the guest executes no further instruction, and a service that waits
    /// is given up.
    ///
    /// It takes no lock, allocates nothing and calls only what a signal handler may (signal-safety(7)). It may change `errno`.
    pub fn interrupt(&self) {
        let is_over = self.stopping.swap(true, Ordering::AcqRel);
        self.console.stop();
        // Refused only when its counter is full, and then it is readable.
        let _ = rustix::io::write(&*self.stop_event, &1_u64.to_ne_bytes());
        self.kicker.kick();
        // A signal can come just before a call that waits: then another one ends the call. But nobody is to be kicked for ever
        // after the machine's end.
        if !is_over && let Some(timer) = self.timer.get() {
            let _ = timer.set(KICK_AGAIN, KICK_AGAIN);
        }
    }
}

/// What there is to do at times besides answering exits.
#[derive(Debug)]
pub(crate) struct Chores {
    pub(crate) console: Arc<Console>,
    pub(crate) halts: Option<HaltWatch>,
    pub(crate) timer: Timer,
    /// When a partial line has waited for long enough.
    pub(crate) flush: Option<Instant>,
}

impl Chores {
    /// How often the timer kicks the vCPU while there is nothing else to do. It goes on by itself, so that a kick that
    /// ends something else is not missed for long.
    pub(crate) const INTERVAL: Duration = halts::FIRST;

    /// Does what there is to do by now. Says if the machine ends.
    pub(crate) fn attend(&mut self, vcpu: &mut dyn Vcpu) -> Option<End> {
        if self.flush.is_some_and(|flush| Instant::now() >= flush) {
            self.flush = None;
            match self.console.flush() {
                Ok(true) => {}
                Ok(false) => self.flush_after(TRY_AGAIN),
                Err(error) => return Some(End::Host(Error::Output(error))),
            }
        }
        let halted = || halts::is_halted(vcpu, RunState::Paused).unwrap_or(false);
        let is_over = self.halts.as_mut().is_some_and(|halts| halts.look(halted));
        is_over.then_some(End::Crashed(nerite_vcpu::Exit::Halt))
    }

    /// Takes note of what the guest has begun to write.
    pub(crate) fn note_output(&mut self) {
        if self.flush.is_none() && self.console.has_partial_line() {
            self.flush_after(Console::GRACE);
        }
    }

    fn flush_after(&mut self, delay: Duration) {
        self.flush = Instant::now().checked_add(delay);
        if let Some(Err(error)) = self.timer.get().map(|timer| timer.set(delay, Self::INTERVAL)) {
            // The next regular kick is late, and not missing.
            log::debug!("setting the timer for a partial line: {error}");
        }
    }
}
