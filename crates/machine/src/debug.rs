//! Stops of vCPUs for a debugger.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nerite_inspect::Reason;
use nerite_memory::GuestRam;
use nerite_platform::{End, ExitHandler, Stop};
pub use nerite_service::{DebugEvent, DebugReason};
use nerite_vcpu::{Control, DebugStop, Entry, Exit, Handler, RunState, Vcpu};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use crate::Error;
use crate::ends::Ends;
use crate::msr::Msrs;
use crate::trigger::Trigger;

/// Queue of stop events for the debugger.
#[derive(Debug)]
pub struct DebugEvents {
    queue: Mutex<VecDeque<DebugEvent>>,
    /// Readable while there are some.
    event: OwnedFd,
    attached: AtomicBool,
}

impl DebugEvents {
    pub(crate) fn new() -> Result<Self, Error> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(Error::host("creating an eventfd"))?;
        Ok(Self { queue: Mutex::default(), event, attached: AtomicBool::new(false) })
    }

    /// Readable while there are events.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// The oldest event.
    pub fn take(&self) -> Option<DebugEvent> {
        let mut queue = self.queue.lock();
        let event = queue.pop_front();
        if queue.is_empty() {
            // It is non-blocking: that there is nothing to take back is no error.
            let _ = rustix::io::read(&self.event, &mut [0_u8; 8]);
        }
        event
    }

    fn push(&self, event: DebugEvent) {
        let mut queue = self.queue.lock();
        queue.push_back(event);
        // An eventfd refuses only when its counter is full.
        if let Err(error) = rustix::io::write(&self.event, &1_u64.to_ne_bytes()) {
            log::error!("telling the debugger: {error}");
        }
    }

    /// Says whether there is a debugger, which then sees crashes before the machine ends.
    pub fn set_attached(&self, attached: bool) {
        self.attached.store(attached, Ordering::Release);
    }

    fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }
}

/// Answers exits, and holds the vCPU at those that are the debugger's.
#[derive(Debug)]
pub(crate) struct Stopper {
    pub(crate) dispatcher: Box<dyn ExitHandler>,
    pub(crate) control: Arc<Control>,
    pub(crate) events: Option<Arc<DebugEvents>>,
    /// vCPUs that have come to a moment at which something is due.
    pub(crate) moment: Option<Arc<DebugEvents>>,
    /// `true` if a crash is kept for a debugger that has yet to come.
    pub(crate) holds_crashes: bool,
    pub(crate) msrs: Arc<Msrs>,
    /// Holds the vCPU for a snapshot, if one is to be made.
    pub(crate) snapshot: Option<Arc<Trigger>>,
    pub(crate) ram: Arc<GuestRam>,
    /// Holds the vCPU where the guest ends, if that is wanted.
    pub(crate) ends: Option<Arc<Ends>>,
}

impl Stopper {
    /// Holds the vCPU until the debugger releases it.
    fn stop(&self, vcpu: &mut dyn Vcpu, events: &DebugEvents, why: DebugReason) -> ControlFlow<()> {
        self.control.hold_self();
        events.push(DebugEvent { vcpu: usize::try_from(vcpu.index()).unwrap_or(usize::MAX), why });
        self.control.service_requests(vcpu, RunState::Paused)
    }
}

impl Stopper {
    /// As [`Self::stop`], between two instructions.
    fn hold(
        &self,
        vcpu: &mut dyn Vcpu,
        events: &DebugEvents,
        why: DebugReason,
    ) -> ControlFlow<Stop, Entry> {
        match self.stop(vcpu, events, why) {
            ControlFlow::Break(()) => ControlFlow::Break(Ok(End::Stopped)),
            ControlFlow::Continue(()) => ControlFlow::Continue(Entry::Resume),
        }
    }
}

impl Handler for Stopper {
    type End = Stop;

    fn handle(&mut self, vcpu: &mut dyn Vcpu, exit: &Exit) -> ControlFlow<Stop, Entry> {
        match exit {
            Exit::MsrRead { .. } | Exit::MsrWrite { .. } => {
                ControlFlow::Continue(self.msrs.answer(vcpu, exit))
            }
            _ if self.snapshot.is_none() && self.ends.is_none() => self.handle_or_hold(vcpu, exit),
            _ => self.handle_and_look(vcpu, exit),
        }
    }
}

impl Stopper {
    /// As [`Self::handle_or_hold`]; the vCPU is held as well where a snapshot is due or the guest
    /// ends.
    fn handle_and_look(&mut self, vcpu: &mut dyn Vcpu, exit: &Exit) -> ControlFlow<Stop, Entry> {
        let mut next = self.handle_or_hold(vcpu, exit);
        if let Some(snapshot) = &self.snapshot {
            next = snapshot.look(vcpu, (&self.control, &self.ram), *exit, next);
        }
        match (next, &self.ends) {
            (ControlFlow::Break(end), Some(ends)) => ends.hold(vcpu, &self.control, end),
            (next, _) => next,
        }
    }

    /// Answers an exit, or holds the vCPU for the debugger.
    fn handle_or_hold(&mut self, vcpu: &mut dyn Vcpu, exit: &Exit) -> ControlFlow<Stop, Entry> {
        if let Some(moment) = self.moment.as_ref().filter(|moment| moment.is_attached()) {
            let stop = match exit {
                Exit::Debug { .. } => take_stop(vcpu),
                Exit::InstructionLimit { .. } => Some(DebugStop::Step),
                _ => None,
            };
            if let Some(stop) = stop {
                return self.hold(vcpu, moment, DebugReason::Stop(stop));
            }
        }
        let Some(events) = &self.events else { return self.dispatcher.handle(vcpu, exit) };
        if let Exit::Debug { .. } = exit
            && let Some(stop) = take_stop(vcpu)
        {
            return self.hold(vcpu, events, DebugReason::Stop(stop));
        }
        let next = self.dispatcher.handle(vcpu, exit);
        if let ControlFlow::Break(Ok(End::Crashed(exit))) = &next
            && (self.holds_crashes || events.is_attached())
        {
            if !events.is_attached() {
                let (index, reason) = (vcpu.index(), Reason(exit));
                log::warn!("the guest crashed on vCPU {index}: {reason}; it is held for GDB");
            }
            // However it is resumed, the machine ends.
            let _ = self.stop(vcpu, events, DebugReason::Crash(*exit));
        }
        next
    }
}

/// The cause of a stop for the debugger, if the vCPU can be debugged.
fn take_stop(vcpu: &mut dyn Vcpu) -> Option<DebugStop> {
    vcpu.debugger()?.take_debug_stop()
}
