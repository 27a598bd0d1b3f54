//! Counting the instructions of guests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of a [`InstructionBudget`] for the number that is left; the others are for the number of
/// leases.
const LEFT_BITS: u32 = 56;
const LEFT: u64 = (1 << LEFT_BITS) - 1;
const LEASE: u64 = 1 << LEFT_BITS;

/// Budget of instructions that the vCPUs of a machine share. The sum of what they execute is exact.
///
/// A vCPU takes a number of instructions at once as a lease, executes some of them, and returns the
/// rest, so that vCPUs meet in one atomic operation at the beginning of a slice and in one at its
/// end.
#[derive(Debug, Clone)]
pub struct InstructionBudget(Arc<AtomicU64>);

/// Answer to a request for instructions of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// So many, at least one; what is not executed goes [back](InstructionBudget::give_back).
    Granted(u64),
    /// None are left, but other vCPUs may give some back: they are within a slice.
    Wait,
    /// All are executed.
    Spent,
}

impl InstructionBudget {
    /// A budget of this many. More than 2^56 - 1, which take years, are that many.
    pub fn new(instructions: u64) -> Self {
        Self(Arc::new(AtomicU64::new(instructions.min(LEFT))))
    }

    /// Number of instructions that no vCPU has taken.
    pub fn left(&self) -> u64 {
        self.0.load(Ordering::Acquire) & LEFT
    }

    /// Returns `true` if all are executed.
    pub fn is_spent(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    /// Sets the number that is left. Only for a budget without leases.
    pub fn set(&self, left: u64) {
        self.0.store(left.min(LEFT), Ordering::Release);
    }

    /// Takes one instruction, which is executed in any case. Returns `false` if none is left.
    pub fn take(&self) -> bool {
        let one = |budget: u64| {
            budget.checked_sub(u64::from(budget & LEFT != 0)).filter(|new| *new != budget)
        };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, one).is_ok()
    }

    /// Returns instructions that were taken but not executed, and belong to no lease.
    pub fn refund(&self, unused: u64) {
        self.0.fetch_add(unused, Ordering::AcqRel);
    }

    /// Takes up to `most` instructions. A vCPU has at most one lease.
    pub fn lease(&self, most: u64) -> Lease {
        let taken = |budget: u64| most.min(budget & LEFT);
        let lease = |budget: u64| match taken(budget) {
            0 => None,
            count => budget.checked_sub(count)?.checked_add(LEASE),
        };
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, lease) {
            Ok(before) => Lease::Granted(taken(before)),
            Err(0) => Lease::Spent,
            Err(_) => Lease::Wait,
        }
    }

    /// Ends a lease, of which `unused` instructions were not executed.
    pub fn give_back(&self, unused: u64) {
        self.0.fetch_sub(LEASE.wrapping_sub(unused), Ordering::AcqRel);
    }
}

/// Receives the guest-virtual address of an instruction and the number of its executions since it
/// was reported last.
pub type Executions = Box<dyn FnMut(u64, u64) + Send>;

/// The ability of a vCPU to count the instructions that it completes.
///
/// A repeated string instruction is one, when its last element is done. An instruction that faults
/// is none.
pub trait InstructionCounter {
    /// Number of instructions completed so far.
    fn instructions(&self) -> u64;

    /// Ends a step with [`crate::Exit::InstructionLimit`] before an instruction that `budget` has
    /// no room for.
    fn set_instruction_budget(&mut self, budget: InstructionBudget);

    /// Counts how often each instruction is executed from now on, and reports it in parts, the last
    /// of which [`Self::report_executions`] asks for. The sum is the number of instructions.
    fn count_executions(&mut self, report: Executions);

    /// Reports the executions that have not been reported.
    fn report_executions(&mut self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_wait_for_those_that_may_come_back() {
        let budget = InstructionBudget::new(100);
        assert_eq!(budget.lease(60), Lease::Granted(60));
        assert_eq!(budget.lease(60), Lease::Granted(40));
        assert_eq!((budget.lease(1), budget.is_spent()), (Lease::Wait, false));
        budget.give_back(10);
        assert_eq!((budget.left(), budget.lease(60)), (10, Lease::Granted(10)));
        budget.give_back(0);
        assert_eq!(budget.lease(1), Lease::Wait);
        budget.give_back(0);
        assert_eq!((budget.lease(1), budget.is_spent()), (Lease::Spent, true));
    }

    #[test]
    fn single_instructions_are_taken_beside_leases() {
        let budget = InstructionBudget::new(3);
        assert!(budget.take());
        assert_eq!(budget.lease(1), Lease::Granted(1));
        assert!(budget.take() && !budget.take());
        budget.give_back(1);
        assert!(budget.take() && !budget.take() && budget.is_spent());
        budget.refund(1);
        assert_eq!(budget.left(), 1);
        assert_eq!(InstructionBudget::new(u64::MAX).left(), LEFT);
    }

    #[test]
    fn threads_execute_exactly_the_budget() {
        let budget = InstructionBudget::new(100_003);
        let executed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for part in 1..=4 {
                let (budget, executed) = (&budget, &executed);
                scope.spawn(move || {
                    loop {
                        match budget.lease(64) {
                            Lease::Granted(count) => {
                                let used = count.div_ceil(part);
                                executed.fetch_add(used, Ordering::Relaxed);
                                budget.give_back(count - used);
                            }
                            Lease::Wait => std::thread::yield_now(),
                            Lease::Spent => break,
                        }
                    }
                });
            }
        });
        assert_eq!(executed.into_inner(), 100_003);
    }
}
