//! A guest that may execute so many instructions and no more.
//!
//! Instructions are counted by executing them one at a time, so the count is exact and the guest slow. A repeated string
//! instruction counts once, as the processor's own counters have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::debug::is_access;
use crate::{DebugStop, EngineDebug, Entry, Error, Exit, Foresee, Layer, Vcpu};

/// How many instructions the vCPUs of a machine may still execute, all together.
#[derive(Debug, Clone)]
pub struct InstructionBudget(Arc<AtomicU64>);

impl InstructionBudget {
    /// A budget of this many.
    pub fn new(instructions: u64) -> Self {
        Self(Arc::new(AtomicU64::new(instructions)))
    }

    /// How many are left.
    pub fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes one. Returns false if none is left.
    fn take(&self) -> bool {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        taken.is_ok()
    }
}

/// A vCPU that stops with [`DebugStop::Limit`] when the budget is used up.
#[derive(Debug)]
pub struct Limited<V> {
    inner: V,
    budget: InstructionBudget,
    foresee: Box<dyn Foresee>,
    /// Whether the last exit is an access that waits for its answer; its instruction is paid for.
    pending: bool,
    /// Whether the next step goes on with an instruction that is paid for.
    is_paid: bool,
    stop: Option<DebugStop>,
}

impl<V: Vcpu> Limited<V> {
    /// Lets `inner` execute what is left of `budget`.
    pub fn new(inner: V, budget: InstructionBudget, foresee: Box<dyn Foresee>) -> Self {
        Self { inner, budget, foresee, pending: false, is_paid: false, stop: None }
    }

    /// Executes one instruction, or one element of a repeated one. `Some` is an exit on the way.
    fn step(&mut self) -> Result<Option<Exit>, Error> {
        let before = self.inner.regs()?;
        // The guest can have cleared the trap flag: it is set anew for each step.
        self.inner.set_engine_debug(&EngineDebug {
            single_step: true,
            trap: true,
            ..EngineDebug::default()
        })?;
        let exit = self.inner.run(Entry::Resume)?;
        let Exit::Debug { rip, .. } = exit else {
            self.pending = is_access(&exit);
            if exit == Exit::Kicked && self.inner.regs()?.rip == before.rip {
                self.is_paid = true;
            }
            return Ok(Some(exit));
        };
        self.is_paid = rip == before.rip && self.foresee.is_repeated(&mut self.inner, &before)?;
        Ok(None)
    }
}

impl<V: Vcpu> Layer for Limited<V> {
    type Inner = V;

    fn inner(&self) -> &V {
        &self.inner
    }

    fn inner_mut(&mut self) -> &mut V {
        &mut self.inner
    }

    fn run_layer(&mut self, entry: Entry) -> Result<Exit, Error> {
        self.stop = None;
        if self.pending {
            if let Some(exit) = self.inner.complete(entry)?
                && !matches!(exit, Exit::Debug { .. })
            {
                return Ok(exit);
            }
            self.pending = false;
        }
        loop {
            if !std::mem::take(&mut self.is_paid) && !self.budget.take() {
                let rip = self.inner.regs()?.rip;
                self.stop = Some(DebugStop::Limit);
                return Ok(Exit::Debug { rip, exception: 1, dr6: 0 });
            }
            if let Some(exit) = self.step()? {
                return Ok(exit);
            }
        }
    }

    fn complete_layer(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        let exit = self.inner.complete(entry)?;
        self.pending = exit.as_ref().is_some_and(is_access);
        Ok(exit)
    }

    fn take_stop_layer(&mut self) -> Option<DebugStop> {
        self.stop.take().or_else(|| self.inner.take_debug_stop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debug::tests::{Sees, Toy};

    #[test]
    fn the_budget_is_met_exactly_and_shared() {
        let budget = InstructionBudget::new(25);
        // The toy writes a port with its instruction at 10, which counts as one.
        let mut first = Limited::new(Toy::with_out_at(10), budget.clone(), Box::new(Sees));
        let out = first.run(Entry::Resume).unwrap();
        assert!(matches!(out, Exit::PortOut { .. }));
        assert_eq!(budget.left(), 14);
        assert!(matches!(first.run(Entry::Resume).unwrap(), Exit::Debug { rip: 25, .. }));
        assert_eq!(first.take_debug_stop(), Some(DebugStop::Limit));
        let mut second = Limited::new(Toy::with_out_at(500), budget, Box::new(Sees));
        assert!(matches!(second.run(Entry::Resume).unwrap(), Exit::Debug { rip: 0, .. }));
    }
}
