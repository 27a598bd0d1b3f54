//! Coalesced writes of both hypervisors.

use std::ops::ControlFlow;
use std::sync::Arc;

use nerite_hypervisor::{CoalescedWrite, CoalescedWrites};

use crate::pair::Pair;

/// The writes of both hypervisors. One of them has none: they are taken before each hand-over.
#[derive(Debug)]
pub(crate) struct Writes(pub(crate) Pair<Arc<dyn CoalescedWrites>>);

impl Writes {
    /// Takes from one after the other, until `each` ends that.
    fn take_by(
        &self,
        each: &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>,
        take: fn(&dyn CoalescedWrites, &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>),
    ) {
        let mut flow = ControlFlow::Continue(());
        for writes in self.0.iter() {
            if flow.is_continue() {
                take(&**writes, &mut |write| {
                    flow = each(write);
                    flow
                });
            }
        }
    }
}

impl CoalescedWrites for Writes {
    fn is_empty(&self) -> bool {
        self.0.iter().all(|writes| writes.is_empty())
    }

    fn take(&self, each: &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>) {
        self.take_by(each, |writes, each| writes.take(each));
    }

    fn taken(&self) -> u64 {
        self.0.iter().fold(0, |sum, writes| sum.saturating_add(writes.taken()))
    }

    fn try_take(&self, each: &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>) {
        self.take_by(each, |writes, each| writes.try_take(each));
    }
}
