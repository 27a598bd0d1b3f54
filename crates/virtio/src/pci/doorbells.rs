//! Notifications that signal events without a vCPU's help.

use nerite_pci::{Event, WINDOW};

use super::{NOTIFY_MULTIPLIER, State, VirtioPci, region};
use crate::VirtioDevice;

/// Reason for having no doorbell. The guest's notification then comes by a write that a vCPU takes
/// out of the guest.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DoorbellError(pub String);

/// Makes writes of the guest signal events without a vCPU's help.
pub trait Doorbells: Send + Sync {
    /// From now on a write of any width at the guest-physical `address` signals `event`, and
    /// nothing else.
    ///
    /// # Errors
    /// If the hypervisor refuses.
    fn attach(&self, address: u64, event: &Event) -> Result<(), DoorbellError>;

    /// Ends what [`Self::attach`] began.
    fn detach(&self, address: u64, event: &Event);
}

/// No doorbells: every notification is a write that a vCPU brings.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDoorbells;

impl Doorbells for NoDoorbells {
    fn attach(&self, _: u64, _: &Event) -> Result<(), DoorbellError> {
        Err(DoorbellError("this hypervisor has no doorbells".to_owned()))
    }

    fn detach(&self, _: u64, _: &Event) {}
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// Attaches, moves or detaches doorbells, as the driver's state and the base address want it.
    pub(super) fn place_doorbells(&self, state: &mut State) {
        let address =
            state.config.bar_address(0).filter(|_| state.common.is_frozen() && !state.is_resetting);
        // Elsewhere other things answer.
        let address = address.filter(|address| WINDOW.contains(address));
        if state.attached.as_ref().map(|(at, _)| *at) == address {
            return;
        }
        if let Some((at, queues)) = state.attached.take() {
            for index in queues {
                if let Some(kick) = self.kicks.get(usize::from(index)) {
                    self.doorbells.detach(doorbell(at, index), kick);
                }
            }
        }
        let Some(at) = address else { return };
        let mut queues = Vec::new();
        for (index, kick) in
            (0_u16..).zip(self.kicks.iter()).filter(|(index, _)| state.common.is_live(*index))
        {
            match self.doorbells.attach(doorbell(at, index), kick) {
                Ok(()) => queues.push(index),
                Err(error) => log::debug!("no doorbell for queue {index} at {at:#x}: {error}"),
            }
        }
        state.attached = Some((at, queues));
    }
}

/// The address that the guest writes to notify queue `index`.
fn doorbell(bar: u64, index: u16) -> u64 {
    let offset = u64::from(index).saturating_mul(NOTIFY_MULTIPLIER.into());
    bar.saturating_add(region::NOTIFY).saturating_add(offset)
}
