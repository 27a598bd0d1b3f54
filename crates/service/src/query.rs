//! Questions to vCPUs.

use std::sync::mpsc::sync_channel;

use nerite_arch::{Regs, SpecialRegs};
use nerite_vcpu::{Error, RunState, Statistics, Vcpu};

use crate::{Machine, Refusal};

/// Has `question` answered on the thread of a vCPU, held or not, and returns the answer.
///
/// # Errors
/// As [`Machine::ask`].
pub fn query<M: Machine + ?Sized, T: Send + 'static>(
    machine: &M,
    vcpu: usize,
    question: impl FnOnce(&mut dyn Vcpu, RunState) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let (sender, receiver) = sync_channel(1);
    let job = move |vcpu: &mut dyn Vcpu, state| {
        // A late answer has no receiver any more.
        let _ = sender.send(question(vcpu, state));
    };
    machine.ask(vcpu, Box::new(job))?;
    receiver.try_recv().map_err(|error| Refusal::Failed(error.to_string()))
}

/// Registers of a vCPU.
///
/// # Errors
/// As [`Machine::ask`], or if the hypervisor fails.
pub fn registers<M: Machine + ?Sized>(
    machine: &M,
    vcpu: usize,
) -> Result<(Regs, SpecialRegs), Refusal> {
    query(machine, vcpu, |vcpu, _| Ok((vcpu.regs()?, vcpu.special_regs()?)))?.map_err(failed)
}

/// Makes a non-maskable interrupt pending on a vCPU.
///
/// # Errors
/// As [`Machine::ask`], or if the hypervisor fails.
pub fn inject_nmi<M: Machine + ?Sized>(machine: &M, vcpu: usize) -> Result<(), Refusal> {
    query(machine, vcpu, |vcpu, _| vcpu.inject_nmi())?.map_err(failed)
}

/// Statistics of each vCPU so far; `None` for a vCPU that measures nothing or cannot be asked.
pub fn statistics<M: Machine + ?Sized>(machine: &M) -> Vec<Option<Statistics>> {
    let ask = |vcpu| query(machine, vcpu, |vcpu, _| vcpu.statistics()).ok().flatten();
    (0..machine.vcpu_count()).map(ask).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: Error) -> Refusal {
    Refusal::Failed(error.to_string())
}
