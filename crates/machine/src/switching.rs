//! Hand-over of a running machine between hypervisors.

use std::time::{Duration, Instant};

use nerite_hypervisor::{VcpuState, VmState};
use nerite_service::SwitchReport;
use nerite_switch::Side;

use crate::handle::{Handle, HandleError};
use crate::snapshot::SnapshotError;

/// Name of the hypervisor whose single steps are cheap.
const SOFTWARE: &str = "software";

/// A guest cannot be handed over. It goes on where it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwitchError {
    /// The machine does not have this hypervisor.
    #[error("this machine has no accelerator {name:?} (it has {has})")]
    NotThere {
        /// The name.
        name: String,
        /// Names of those that it has.
        has: String,
    },
    /// The state cannot be saved now.
    #[error(transparent)]
    Save(#[from] SnapshotError),
    /// The other hypervisor cannot have the state.
    #[error("handing the guest over: {0}")]
    Restore(#[source] HandleError),
}

impl Handle {
    /// Name of the hypervisor that runs the guest, in lower case.
    pub fn accelerator(&self) -> String {
        self.saver.hypervisor.name().to_ascii_lowercase()
    }

    /// Hands the guest over to the hypervisor of this name, one of two that the machine was built
    /// with. All vCPUs are paused meanwhile; devices go on, and their interrupts wait.
    ///
    /// # Errors
    /// Fails if the machine has no such hypervisor, a vCPU waits for the host, or the hypervisor
    /// cannot have the guest's state. The guest goes on where it was.
    pub fn switch_accelerator(&self, name: &str) -> Result<SwitchReport, SwitchError> {
        let saver = &self.saver;
        let has = |side| saver.switch.as_ref().map(|it| it.name(side).to_ascii_lowercase());
        let named = Side::ALL.into_iter().find(|side| has(*side).as_deref() == Some(name));
        let (Some(switch), Some(side)) = (&saver.switch, named) else {
            if name == self.accelerator() {
                return Ok(SwitchReport { paused: Duration::ZERO });
            }
            let all = Side::ALL.map(has).into_iter().flatten().collect::<Vec<_>>();
            let has = if all.is_empty() { self.accelerator() } else { all.join(" and ") };
            return Err(SwitchError::NotThere { name: name.to_owned(), has });
        };
        let _one = saver.lock.lock();
        if switch.active() == side {
            return Ok(SwitchReport { paused: Duration::ZERO });
        }
        let pause = self.pause_between_instructions()?;
        let paused = Instant::now();
        // Writes that were coalesced would be left with the hypervisor that collected them.
        saver.drain_output()?;
        let save = || {
            let vcpus = self.save_vcpus()?;
            Ok((vcpus, saver.vm.save().map_err(SnapshotError::from)?))
        };
        switch.hand_over(side, save, |(vcpus, vm)| {
            self.restore(vcpus, &vm).map_err(SwitchError::Restore)
        })?;
        drop(pause);
        let paused = paused.elapsed();
        log::debug!("the guest was handed over to {name} in {paused:?}");
        Ok(SwitchReport { paused })
    }

    /// Hands the guest over to the hypervisor that does not have it.
    ///
    /// # Errors
    /// As [`Handle::switch_accelerator`].
    pub(crate) fn switch_to_other(&self) -> Result<SwitchReport, SwitchError> {
        let other = self.saver.switch.as_ref().map(|switch| switch.name(switch.active().other()));
        self.switch_accelerator(&other.unwrap_or_default().to_ascii_lowercase())
    }

    /// Hands a guest that is about to be single-stepped over to the processor in software, and back
    /// when it is not stepped any more. Returns `true` if it is there.
    pub(crate) fn prepare_steps(&self, stepped: bool) -> bool {
        let saver = &self.saver;
        let Some(switch) = &saver.switch else { return saver.hypervisor.name() == SOFTWARE };
        let mut before = saver.before_steps.lock();
        let wanted = match stepped {
            true => {
                before.get_or_insert(switch.active());
                Side::ALL.into_iter().find(|side| switch.name(*side) == SOFTWARE)
            }
            false => before.take(),
        };
        let wanted = wanted.filter(|_| !self.is_ending());
        let name = wanted.map(|side| switch.name(side).to_ascii_lowercase());
        if let Some(name) = name
            && let Err(error) = self.switch_accelerator(&name)
        {
            log::warn!("the guest stays with {}: {error}", self.accelerator());
        }
        switch.name(switch.active()) == SOFTWARE
    }

    /// Gives the vCPUs, which are paused, and the chips that they share their states.
    fn restore(&self, vcpus: Vec<VcpuState>, vm: &VmState) -> Result<(), HandleError> {
        for (index, state) in vcpus.into_iter().enumerate() {
            self.ask(index, move |vcpu, _| vcpu.restore(&state))??;
        }
        Ok(self.saver.vm.restore(vm)?)
    }
}
