//! vCPUs that are held where their guest has ended.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use nerite_event::Event;
use nerite_platform::{End, Stop};
use nerite_vcpu::{Control, Entry, Exit, RunState, SystemEvent, Vcpu};
use parking_lot::{Condvar, Mutex};

/// End of a guest whose vCPU is held there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldEnd {
    /// The vCPU.
    pub vcpu: u32,
    /// Code with which the guest ended itself; `None` if it crashed, or asked for power-off or a
    /// reset.
    pub code: Option<i32>,
    /// `true` if it crashed.
    pub is_crash: bool,
}

/// vCPUs that are held where their guest has ended.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    held: Mutex<EndsState>,
    changed: Condvar,
    /// The ways of the guest to reset itself, if these are the only ends that are held.
    resets: Option<Resets>,
}

/// The ways of a guest to reset itself.
#[derive(Debug)]
struct Resets {
    /// Signalled when it has.
    event: Event,
    /// `true` if a triple fault is one, as it is for a PC.
    by_triple_fault: bool,
}

#[derive(Debug, Default)]
struct EndsState {
    /// Ends that nothing has asked for yet.
    news: VecDeque<HeldEnd>,
    /// vCPUs that are held.
    vcpus: Vec<u32>,
}

impl Ends {
    /// Holds only vCPUs that reset the guest, which signal `event`.
    pub(crate) fn of_resets(event: Event, by_triple_fault: bool) -> Self {
        Self { resets: Some(Resets { event, by_triple_fault }), ..Self::default() }
    }

    /// Holds a vCPU whose guest is at an end, until the machine is reset or stopped.
    pub(crate) fn hold(
        &self,
        vcpu: &mut dyn Vcpu,
        control: &Control,
        end: Stop,
    ) -> ControlFlow<Stop, Entry> {
        let (code, is_crash) = match &end {
            Ok(End::Exited(code)) => (Some(*code), false),
            Ok(End::Crashed(_)) => (None, true),
            Ok(End::System(_) | End::Reset(_)) => (None, false),
            _ => return ControlFlow::Break(end),
        };
        if self.resets.as_ref().is_some_and(|resets| !resets.has(&end)) {
            return ControlFlow::Break(end);
        }
        // The instruction that ended the guest is half done.
        match vcpu.complete(Entry::Resume) {
            Ok(None) => {}
            Ok(Some(_)) => return ControlFlow::Break(end),
            Err(error) => return ControlFlow::Break(Err(error.into())),
        }
        let index = vcpu.index();
        control.hold_self();
        {
            let mut held = self.held.lock();
            held.vcpus.push(index);
            if let Some(resets) = &self.resets {
                resets.event.signal();
            } else {
                held.news.push_back(HeldEnd { vcpu: index, code, is_crash });
                self.changed.notify_all();
            }
        }
        let goes_on = control.service_requests(vcpu, RunState::Paused).is_continue();
        let mut held = self.held.lock();
        if goes_on && !held.vcpus.contains(&index) {
            return ControlFlow::Continue(Entry::Resume);
        }
        held.vcpus.retain(|other| *other != index);
        ControlFlow::Break(end)
    }

    /// Lets the held vCPUs go on, which have another state now.
    pub(crate) fn resume(&self, controls: &[Arc<Control>]) {
        let mut held = self.held.lock();
        held.news.clear();
        for index in std::mem::take(&mut held.vcpus) {
            if let Some(control) = usize::try_from(index).ok().and_then(|at| controls.get(at)) {
                control.release();
            }
        }
    }

    pub(crate) fn wait(
        &self,
        deadline: Option<Instant>,
        is_over: impl Fn() -> bool,
    ) -> Option<HeldEnd> {
        let mut held = self.held.lock();
        loop {
            if let Some(end) = held.news.pop_front() {
                return Some(end);
            }
            if is_over() {
                return None;
            }
            let timed_out = match deadline {
                Some(deadline) => self.changed.wait_until(&mut held, deadline).timed_out(),
                None => {
                    self.changed.wait(&mut held);
                    false
                }
            };
            if timed_out && held.news.is_empty() {
                return None;
            }
        }
    }

    /// Wakes what waits for an end: the machine is ending.
    pub(crate) fn notify(&self) {
        // Under the lock: the look at the end of the machine is, too.
        let _held = self.held.lock();
        self.changed.notify_all();
    }
}

impl Resets {
    fn has(&self, end: &Stop) -> bool {
        match end {
            Ok(End::Reset(_) | End::System(SystemEvent::Reset)) => true,
            Ok(End::Crashed(Exit::Shutdown)) => self.by_triple_fault,
            _ => false,
        }
    }
}
