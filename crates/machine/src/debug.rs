//! What a debugger is told, and what it can find out about a machine.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nerite_arch::SpecialRegs;
use nerite_arch::paging::{self, Root, Translation};
use nerite_memory::GuestRam;
use nerite_vcpu::{Control, DebugStop, Entry, Exit, Handler, RunState, Vcpu};
use rustix::event::{EventfdFlags, eventfd};

use crate::Error;
use crate::alone::Chores;
use crate::crash::Reason;
use crate::dispatch::End;
use crate::guest::AnyDispatcher;
use crate::msr::Msrs;
use crate::vcpu_thread::lock;

/// A vCPU has stopped for the debugger. It is held, once, until the debugger releases it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugEvent {
    /// Which one.
    pub vcpu: usize,
    /// Why.
    pub why: DebugReason,
}

/// Why a vCPU has stopped for the debugger.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DebugReason {
    /// It was told to.
    Stop(DebugStop),
    /// It has crashed, and ends the machine when it is released.
    Crash(Exit),
}

/// Where vCPUs leave word for a debugger.
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
        let mut queue = lock(&self.queue);
        let event = queue.pop_front();
        if queue.is_empty() {
            // It is non-blocking: that there is nothing to take back is no error.
            let _ = rustix::io::read(&self.event, &mut [0_u8; 8]);
        }
        event
    }

    fn push(&self, event: DebugEvent) {
        let mut queue = lock(&self.queue);
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
    pub(crate) dispatcher: AnyDispatcher,
    pub(crate) control: Arc<Control>,
    pub(crate) events: Option<Arc<DebugEvents>>,
    /// Whether the vCPU has a budget of instructions.
    pub(crate) is_limited: bool,
    /// What there is to do on this vCPU's thread, if there is no other.
    pub(crate) chores: Option<Box<Chores>>,
    /// Whether a crash is kept for a debugger that has yet to come.
    pub(crate) holds_crashes: bool,
    pub(crate) msrs: Arc<Msrs>,
}

impl Stopper {
    /// Holds the vCPU until the debugger releases it.
    fn stop(&self, vcpu: &mut dyn Vcpu, events: &DebugEvents, why: DebugReason) -> ControlFlow<()> {
        self.control.hold_self();
        events.push(DebugEvent { vcpu: usize::try_from(vcpu.index()).unwrap_or(usize::MAX), why });
        self.control.service_requests(vcpu, RunState::Paused)
    }
}

impl Handler for Stopper {
    type End = End;

    fn handle(&mut self, vcpu: &mut dyn Vcpu, exit: Exit) -> ControlFlow<End, Entry> {
        if let Some(chores) = &mut self.chores {
            // Machines with a debugger or a budget have other threads for that.
            if exit == Exit::Kicked
                && let Some(end) = chores.attend(vcpu)
            {
                return ControlFlow::Break(end);
            }
            if let Exit::MsrRead { .. } | Exit::MsrWrite { .. } = exit {
                return ControlFlow::Continue(self.msrs.answer(vcpu, &exit));
            }
            let next = self.dispatcher.handle(vcpu, exit);
            chores.note_output();
            return next;
        }
        if let Exit::Debug { rip, .. } = exit
            && self.is_limited
            && take_stop(vcpu) == Some(DebugStop::Limit)
        {
            return ControlFlow::Break(End::InstructionLimit(rip));
        }
        if let Exit::MsrRead { .. } | Exit::MsrWrite { .. } = exit {
            return ControlFlow::Continue(self.msrs.answer(vcpu, &exit));
        }
        let Some(events) = &self.events else { return self.dispatcher.handle(vcpu, exit) };
        if let Exit::Debug { .. } = exit
            && let Some(stop) = take_stop(vcpu)
        {
            return match self.stop(vcpu, events, DebugReason::Stop(stop)) {
                ControlFlow::Break(()) => ControlFlow::Break(End::Stopped),
                ControlFlow::Continue(()) => ControlFlow::Continue(Entry::Resume),
            };
        }
        let next = self.dispatcher.handle(vcpu, exit);
        if let ControlFlow::Break(End::Crashed(exit)) = &next
            && (self.holds_crashes || events.is_attached())
        {
            if !events.is_attached() {
                let (index, reason) = (vcpu.index(), Reason(exit));
                log::warn!("the guest crashed on vCPU {index}: {reason}; it is held for GDB");
            }
            // However it is let go, the machine ends.
            let _ = self.stop(vcpu, events, DebugReason::Crash(*exit));
        }
        next
    }
}

/// The cause of a stop for the debugger, if the vCPU can be debugged.
fn take_stop(vcpu: &mut dyn Vcpu) -> Option<DebugStop> {
    vcpu.debugger()?.take_debug_stop()
}

/// Where a guest-virtual address leads, through a vCPU's page tables.
///
/// # Errors
/// If it leads nowhere.
pub fn translate(ram: &GuestRam, special: &SpecialRegs, address: u64) -> Result<Translation, String> {
    match Root::of(special) {
        Some(root) => paging::walk(root, address, |entry| ram.read_obj::<u64>(entry).ok())
            .map_err(|error| error.to_string()),
        None => Err(format!("guest-virtual address {address:#x}: the vCPU is not in 64-bit mode")),
    }
}

/// Reads guest-virtual memory. Returns how many bytes could be read, from the first on.
pub fn read_virtual(ram: &GuestRam, special: &SpecialRegs, address: u64, data: &mut [u8]) -> usize {
    pieces(ram, special, address, data.len(), |physical, range| {
        data.get_mut(range).is_some_and(|piece| ram.read(physical, piece).is_ok())
    })
}

/// Writes guest-virtual memory, whatever its pages allow the guest. Returns how many bytes could be written.
pub fn write_virtual(ram: &GuestRam, special: &SpecialRegs, address: u64, data: &[u8]) -> usize {
    pieces(ram, special, address, data.len(), |physical, range| {
        data.get(range).is_some_and(|piece| ram.write(physical, piece).is_ok())
    })
}

/// Splits guest-virtual memory at the borders of small pages, and hands each piece over with its physical address.
fn pieces(
    ram: &GuestRam,
    special: &SpecialRegs,
    address: u64,
    length: usize,
    mut each: impl FnMut(u64, std::ops::Range<usize>) -> bool,
) -> usize {
    const PAGE: u64 = 4096;
    let mut done = 0_usize;
    while done < length {
        let Some(at) = address.checked_add(done as u64) else { break };
        let in_page = PAGE.saturating_sub(at & PAGE.saturating_sub(1));
        let size = usize::try_from(in_page).unwrap_or(1).min(length.saturating_sub(done));
        let Ok(translation) = translate(ram, special, at) else { break };
        let end = done.saturating_add(size);
        if !each(translation.phys, done..end) {
            break;
        }
        done = end;
    }
    done
}
