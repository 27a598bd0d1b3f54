//! Policy for guest accesses of model-specific registers that the hypervisor does not handle.

use nerite_platform::LogBudget;
use nerite_vcpu::{Entry, Exit, Vcpu};

use crate::config::MsrPolicy;

/// Answers accesses of unknown registers.
#[derive(Debug)]
pub(crate) struct Msrs {
    policy: MsrPolicy,
    budget: LogBudget,
}

impl Msrs {
    /// Answers as `policy` says, with at most so many lines in the log.
    pub(crate) fn new(policy: MsrPolicy, log_lines: u32) -> Self {
        Self { policy, budget: LogBudget::new(log_lines) }
    }

    /// The answer to an exit for such an access.
    pub(crate) fn answer(&self, vcpu: &mut dyn Vcpu, exit: &Exit) -> Entry {
        match self.policy {
            MsrPolicy::Ignore => Entry::Data(0),
            MsrPolicy::Fault => Entry::Fault,
            MsrPolicy::Report => {
                let (index, rip) =
                    (vcpu.index(), vcpu.regs().map(|regs| regs.rip).unwrap_or_default());
                match exit {
                    Exit::MsrWrite { index: msr, value } => self.budget.guest_error(format_args!(
                        "vCPU {index} writes {value:#x} to the unknown MSR {msr:#x} at {rip:#x}, and gets a fault"
                    )),
                    Exit::MsrRead { index: msr } => self.budget.guest_error(format_args!(
                        "vCPU {index} reads the unknown MSR {msr:#x} at {rip:#x}, and gets a fault"
                    )),
                    _ => {}
                }
                Entry::Fault
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nerite_hypervisor::scripted::Scripted;

    use super::*;

    #[test]
    fn the_policy_decides() {
        let (read, write) =
            (Exit::MsrRead { index: 0x8b }, Exit::MsrWrite { index: 0x8b, value: 1 });
        for (policy, answer) in [
            (MsrPolicy::Fault, Entry::Fault),
            (MsrPolicy::Report, Entry::Fault),
            (MsrPolicy::Ignore, Entry::Data(0)),
        ] {
            let msrs = Msrs::new(policy, 1);
            for exit in [read, write] {
                assert_eq!(msrs.answer(&mut Scripted::default(), &exit), answer, "{policy:?}");
            }
        }
    }
}
