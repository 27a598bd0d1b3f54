//! A budget of instructions.

use nerite_hypervisor::{Executions, InstructionBudget, InstructionCounter, Lease};

use super::SoftwareVcpu;

/// One vCPU's part in a budget that all vCPUs share.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// `None` without a limit.
    shared: Option<InstructionBudget>,
    /// `true` if the instruction that waits for an answer is taken from the budget: a device has
    /// seen its access, so that it has to be completed.
    is_paid: bool,
}

impl Budget {
    /// `true` if no instruction is left for any vCPU.
    pub(super) fn is_spent(&self) -> bool {
        self.shared.as_ref().is_some_and(InstructionBudget::is_spent)
    }

    /// Takes up to `most` instructions. `None` if there are none; later, there may be.
    pub(super) fn begin(&mut self, most: u64) -> Option<u64> {
        let Some(shared) = &self.shared else { return Some(most) };
        if self.is_paid {
            return Some(1);
        }
        match shared.lease(most) {
            Lease::Granted(count) => Some(count),
            Lease::Wait => {
                // Another vCPU is within its last slice.
                std::thread::yield_now();
                None
            }
            Lease::Spent => None,
        }
    }

    /// Takes note of the end of a run, which left this many over.
    pub(super) fn end(&mut self, unused: u64, is_pending: bool) {
        let Some(shared) = &self.shared else { return };
        match (std::mem::replace(&mut self.is_paid, is_pending), is_pending) {
            // Completed, or it faulted instead.
            (true, false) => shared.refund(unused),
            (true, true) => {}
            (false, _) => shared.give_back(unused.saturating_sub(u64::from(is_pending))),
        }
    }
}

impl InstructionCounter for SoftwareVcpu {
    fn instructions(&self) -> u64 {
        self.cpu.instructions()
    }

    fn set_instruction_budget(&mut self, budget: InstructionBudget) {
        self.budget = Budget { shared: Some(budget), is_paid: self.cpu.has_pending_access() };
    }

    fn count_executions(&mut self, report: Executions) {
        self.cpu.count_executions(report);
    }

    fn report_executions(&mut self) {
        self.cpu.report_executions();
    }
}
