//! A guest that may execute so many instructions and no more.
//!
//! For a hypervisor that cannot end a step at a number of instructions by itself
//! ([`nerite_hypervisor::InstructionCounter`]). Instructions are counted by executing them one at a
//! time, so the count is exact and the guest slow. A repeated string instruction counts once, as
//! the processor's own counters have it. Where there is such a counter, the guest runs freely until
//! little is left; see [`crate::ahead`].

use nerite_hypervisor::{
    Entry, Error, Exit, GuestDebug, InstructionBudget, Layer, OperandDecoder, Vcpu,
};

use crate::ahead::{self, InstructionCount, Progress};
use crate::debug::{is_access, set_guest_debug};

/// A vCPU that stops with [`Exit::InstructionLimit`] when the budget is used up.
#[derive(Debug)]
pub struct Limited {
    inner: Box<dyn Vcpu>,
    budget: InstructionBudget,
    operands: Box<dyn OperandDecoder>,
    /// `true` if the last exit is an access that waits for its answer; its instruction is paid for.
    pending: bool,
    /// `true` if the next step resumes an instruction that is paid for.
    is_paid: bool,
    /// The counter, and what it said in the beginning, while the guest runs freely.
    ahead: Option<(Box<dyn InstructionCount>, u64)>,
}

impl Limited {
    /// Lets `inner` execute what is left of `budget`.
    pub fn new(
        inner: Box<dyn Vcpu>,
        budget: InstructionBudget,
        operands: Box<dyn OperandDecoder>,
    ) -> Self {
        Self { inner, budget, operands, pending: false, is_paid: false, ahead: None }
    }

    /// Lets the guest run freely while `counter` counts, which kicks this vCPU after
    /// [`ahead::period`] of the budget. Only for a vCPU that has the budget for itself.
    pub fn count_by(&mut self, counter: Box<dyn InstructionCount>) {
        if ahead::period(self.budget.left()).is_some() {
            self.ahead = counter.count().map(|first| (counter, first));
        }
    }

    /// Runs freely to the next exit. The kick of the counter is one.
    fn run_ahead(&mut self, entry: Entry) -> Result<Exit, Error> {
        let exit = self.inner.run(entry)?;
        self.pending = is_access(&exit);
        let Some((counter, first)) = &self.ahead else { return Ok(exit) };
        let failed = |what: String| Error::Vcpu {
            index: self.inner.index(),
            operation: "counting instructions",
            source: std::io::Error::other(what),
        };
        let left = match counter.count().map(|now| ahead::progress(self.budget.left(), *first, now))
        {
            Some(Progress::Run) => return Ok(exit),
            Some(Progress::Step(left)) => left,
            // A wrong number would be worse than none.
            Some(Progress::Over(over)) => {
                return Err(failed(format!(
                    "the processor's counter was {over} instructions late"
                )));
            }
            None => return Err(failed("the processor had no room for its counter".to_owned())),
        };
        self.ahead = None;
        self.budget.set(left);
        // The instruction of an access is done when the access is completed, and not counted.
        Ok(exit)
    }

    /// Executes one instruction, or one element of a repeated one. `Some` is an exit on the way.
    fn step(&mut self) -> Result<Option<Exit>, Error> {
        let before = self.inner.regs()?;
        // The guest can have cleared the trap flag: it is set anew for each step.
        let step = GuestDebug { single_step: true, trap: true, ..GuestDebug::default() };
        set_guest_debug(&mut *self.inner, &step)?;
        let exit = self.inner.run(Entry::Resume)?;
        let Exit::Debug { rip, .. } = exit else {
            self.pending = is_access(&exit);
            if exit == Exit::Kicked && self.inner.regs()?.rip == before.rip {
                self.is_paid = true;
            }
            return Ok(Some(exit));
        };
        self.is_paid = rip == before.rip && self.operands.is_repeated(&mut *self.inner, &before)?;
        Ok(None)
    }
}

impl Layer for Limited {
    fn inner(&self) -> &dyn Vcpu {
        &*self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Vcpu {
        &mut *self.inner
    }

    fn run_layer(&mut self, entry: Entry) -> Result<Exit, Error> {
        if self.ahead.is_some() {
            return self.run_ahead(entry);
        }
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
                return Ok(Exit::InstructionLimit { rip: self.inner.regs()?.rip });
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debug::tests::{Sees, Toy};
    use nerite_hypervisor::scripted::Scripted;

    /// Says these numbers one after the other, and then that it has failed.
    #[derive(Debug)]
    struct Says(std::sync::Mutex<Vec<u64>>);

    impl InstructionCount for Says {
        fn count(&self) -> Option<u64> {
            let mut numbers = self.0.lock().unwrap();
            if numbers.is_empty() { None } else { Some(numbers.remove(0)) }
        }
    }

    fn says(numbers: &[u64]) -> Box<Says> {
        Box::new(Says(std::sync::Mutex::new(numbers.to_vec())))
    }

    #[test]
    fn a_counter_hands_over_to_steps() {
        let limit = 100_000;
        let budget = InstructionBudget::new(limit);
        let mut vcpu = Limited::new(Box::new(Toy::with_out_at(10)), budget.clone(), Box::new(Sees));
        // It said 7 before; at the write of the port, 20 instructions are left.
        vcpu.count_by(says(&[7, 7 + limit - 20]));
        assert!(matches!(vcpu.run(Entry::Resume).unwrap(), Exit::PortOut { .. }));
        assert_eq!(budget.left(), 20);
        // 11 is the instruction after the access.
        assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::InstructionLimit { rip: 11 + 20 });
    }

    #[test]
    fn a_counter_that_is_late_or_fails_is_not_run_past() {
        let out = Exit::PortOut { port: 1, width: 1, value: 0 };
        let limited = |numbers: &[u64]| {
            let budget = InstructionBudget::new(50_000);
            let mut vcpu =
                Limited::new(Box::new(Scripted::new([out, out])), budget.clone(), Box::new(Sees));
            vcpu.count_by(says(numbers));
            (vcpu, budget)
        };
        let (mut vcpu, budget) = limited(&[0, 1, 50_001]);
        assert_eq!((vcpu.run(Entry::Resume).unwrap(), budget.left()), (out, 50_000));
        let late = vcpu.run(Entry::Resume).unwrap_err();
        assert!(
            std::error::Error::source(&late).unwrap().to_string().contains("1 instructions late"),
            "{late}"
        );
        let (mut vcpu, _) = limited(&[0]);
        assert!(vcpu.run(Entry::Resume).is_err());
        // Without a counter from the beginning, or with a small budget, everything is stepped.
        assert!(limited(&[]).0.ahead.is_none());
        let mut small =
            Limited::new(Box::new(Scripted::new([out])), InstructionBudget::new(9), Box::new(Sees));
        small.count_by(says(&[0, 0]));
        assert!(small.ahead.is_none());
    }

    #[test]
    fn the_budget_is_met_exactly_and_shared() {
        let budget = InstructionBudget::new(25);
        // The toy writes a port with its instruction at 10, which counts as one.
        let mut first =
            Limited::new(Box::new(Toy::with_out_at(10)), budget.clone(), Box::new(Sees));
        let out = first.run(Entry::Resume).unwrap();
        assert!(matches!(out, Exit::PortOut { .. }));
        assert_eq!(budget.left(), 14);
        assert_eq!(first.run(Entry::Resume).unwrap(), Exit::InstructionLimit { rip: 25 });
        let mut second = Limited::new(Box::new(Toy::with_out_at(500)), budget, Box::new(Sees));
        assert_eq!(second.run(Entry::Resume).unwrap(), Exit::InstructionLimit { rip: 0 });
    }
}
