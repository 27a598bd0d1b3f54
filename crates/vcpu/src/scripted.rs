//! A vCPU that plays back a list of exits: for testing handlers, tracers and loops without a hypervisor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nerite_arch::{Fpu, Regs, SpecialRegs};

use crate::{Entry, Error, Exit, Kick, Kicker, Vcpu};

/// Plays back exits in order and keeps the entries it was answered with. After the last exit it reports
/// [`Exit::Shutdown`] for ever.
#[derive(Debug, Default)]
pub struct Scripted {
    /// The exits still to come.
    pub exits: VecDeque<Exit>,
    /// The entries so far, the first being the one the first step began with.
    pub entries: Vec<Entry>,
    /// The registers it reports.
    pub regs: Regs,
    /// The special registers it reports.
    pub special_regs: SpecialRegs,
    /// The registers of x87, SSE and AVX it reports.
    pub fpu: Fpu,
    kicked: Arc<Flag>,
}

#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Kick for Flag {
    fn kick(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Scripted {
    /// A vCPU that leaves the guest for these reasons, one a step.
    pub fn new(exits: impl IntoIterator<Item = Exit>) -> Self {
        Self { exits: exits.into_iter().collect(), ..Self::default() }
    }
}

impl Vcpu for Scripted {
    fn index(&self) -> u32 {
        0
    }

    fn run(&mut self, entry: Entry) -> Result<Exit, Error> {
        self.entries.push(entry);
        if self.kicked.0.swap(false, Ordering::SeqCst) {
            return Ok(Exit::Kicked);
        }
        Ok(self.exits.pop_front().unwrap_or(Exit::Shutdown))
    }

    fn complete(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        self.entries.push(entry);
        Ok(None)
    }

    fn regs(&mut self) -> Result<Regs, Error> {
        Ok(self.regs)
    }

    fn set_regs(&mut self, regs: &Regs) -> Result<(), Error> {
        self.regs = *regs;
        Ok(())
    }

    fn special_regs(&mut self) -> Result<SpecialRegs, Error> {
        Ok(self.special_regs)
    }

    fn set_special_regs(&mut self, regs: &SpecialRegs) -> Result<(), Error> {
        self.special_regs = *regs;
        Ok(())
    }

    fn fpu(&mut self) -> Result<Fpu, Error> {
        Ok(self.fpu.clone())
    }

    fn set_fpu(&mut self, fpu: &Fpu) -> Result<(), Error> {
        self.fpu = fpu.clone();
        Ok(())
    }

    fn kicker(&self) -> Kicker {
        Kicker::new(self.kicked.clone())
    }

    fn take_kick(&mut self) -> bool {
        self.kicked.0.swap(false, Ordering::SeqCst)
    }
}
