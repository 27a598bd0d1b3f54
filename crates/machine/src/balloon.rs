//! The balloon of a running machine.

use std::time::Duration;

use nerite_service::{BalloonReport, Refusal};
use nerite_virtio_balloon::PAGE;

use crate::Handle;

/// Time that a driver has to report statistics.
const PATIENCE: Duration = Duration::from_millis(500);

/// The balloon cannot have a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BalloonError {
    /// There is no balloon.
    #[error("this machine has no balloon")]
    NotThere,
    /// The size is more than the guest has, or not in pages.
    #[error(
        "a balloon of {size} bytes: it is at most {memory} bytes, the guest's memory, in pages of {PAGE}"
    )]
    Size {
        /// The size.
        size: u64,
        /// Size of RAM.
        memory: u64,
    },
}

impl From<BalloonError> for Refusal {
    fn from(error: BalloonError) -> Self {
        match error {
            BalloonError::NotThere => Self::NotThere(error.to_string()),
            BalloonError::Size { .. } => Self::Invalid(error.to_string()),
        }
    }
}

impl Handle {
    /// Asks the guest for so many bytes of its memory in all, for the host. It gives them when it
    /// likes, and may take them back when it needs them.
    ///
    /// # Errors
    /// Fails if there is no balloon, or the guest has less memory.
    pub fn set_balloon(&self, size: u64) -> Result<(), BalloonError> {
        let function = self.saver.devices.balloon().ok_or(BalloonError::NotThere)?;
        let memory = self.ram().size();
        let pages = u32::try_from(size / PAGE).ok();
        let pages = pages.filter(|_| size <= memory && size.is_multiple_of(PAGE));
        if function.device().set_target(pages.ok_or(BalloonError::Size { size, memory })?) {
            function.notifier().config_changed();
        }
        Ok(())
    }

    /// State of the balloon, with statistics of the guest, for which its driver is asked and that
    /// take up to half a second; `None` without a balloon.
    pub fn balloon(&self) -> Option<BalloonReport> {
        let function = self.saver.devices.balloon()?;
        let statistics = function.device().statistics(PATIENCE);
        let report = self.saver.devices.balloon_report()?;
        let named = statistics.iter().flat_map(|statistics| statistics.named());
        let statistics = named.filter_map(|(name, value)| Some((name, value?))).collect();
        Some(BalloonReport { statistics, ..report })
    }
}
