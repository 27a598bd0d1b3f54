//! A snapshot that is made when the guest comes to a moment of its run.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nerite_devices::Console;
use nerite_log_budget::Causes;
use nerite_snapshot::Staging;

use super::SnapshotError;
use crate::config::SnapshotMoment;
use crate::handle::Handle;
use crate::trigger::Trigger;

/// Time until the next try, if a vCPU or the reader of the output is in the way.
const AGAIN: Duration = Duration::from_millis(20);

/// A snapshot to be made, and its files.
#[derive(Debug)]
pub(crate) struct Planned {
    staging: Staging,
    trigger: Arc<Trigger>,
    /// Time of the next try, once the moment has come.
    due: Option<Instant>,
}

impl Planned {
    /// A snapshot of a guest that has not run yet.
    pub(crate) fn new(
        staging: Staging,
        moment: SnapshotMoment,
        console: &Arc<Console>,
    ) -> std::io::Result<Self> {
        let trigger = Arc::new(Trigger::new(moment, console)?);
        Ok(Self { staging, trigger, due: None })
    }

    /// The part for the threads of the vCPUs.
    pub(crate) fn trigger(&self) -> Arc<Trigger> {
        self.trigger.clone()
    }

    /// Readable when the moment has come.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.trigger.fd()
    }

    /// Time of the next try.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Makes the snapshot if the moment has come, and lets the guest go on. Returns the plan if it
    /// is still to be done.
    pub(crate) fn make_if_due(mut self, handle: &Handle) -> Option<Self> {
        if self.trigger.take() {
            self.due = Some(Instant::now());
        }
        if self.due.is_none_or(|due| due > Instant::now()) {
            return Some(self);
        }
        match handle.snapshot(self.staging.files()) {
            Err(reason @ (SnapshotError::Busy { .. } | SnapshotError::OutputBlocked)) => {
                log::debug!("the snapshot waits: {reason}");
                self.due = Instant::now().checked_add(AGAIN);
                return Some(self);
            }
            Err(error) => log::error!("cannot save the guest: {}", Causes(&error)),
            Ok(report) => match self.staging.commit() {
                Ok(()) => log::info!("the guest is saved: {report:?}"),
                Err(error) => log::error!("cannot save the guest: {}", Causes(&error)),
            },
        }
        self.trigger.end(&handle.controls);
        None
    }
}
