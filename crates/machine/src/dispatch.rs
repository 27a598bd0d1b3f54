//! Answers the exits of one vCPU.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nerite_bus::{Bus, Width};
use nerite_devices::pc::ResetKind;
use nerite_hypercall::{v1, v2};
use nerite_vcpu::{CoalescedWrites, Control, Entry, Exit, Handler, RunState, SystemEvent, Vcpu};

use crate::Error;
use crate::hypercalls::{Hypercalls, Next, Scratch};

/// Why a vCPU stopped for good.
#[derive(Debug)]
pub(crate) enum End {
    /// The guest ended itself with this code.
    Exited(i32),
    /// The guest cannot go on.
    Crashed(Exit),
    /// The guest asked for power-off or reset.
    System(SystemEvent),
    /// The guest reset itself in this way.
    Reset(ResetKind),
    /// The host failed.
    Host(Error),
    /// The machine is being stopped.
    Stopped,
    /// The time it was given is up.
    TimeLimit,
    /// The escape key was typed.
    Left,
    /// All instructions it was given are executed, and it is at this address.
    InstructionLimit(u64),
}

/// What all vCPUs of a machine share: the two address spaces and the hypercalls.
#[derive(Debug)]
pub(crate) struct Platform {
    pub(crate) ports: Bus,
    pub(crate) mmio: Bus,
    pub(crate) calls: Hypercalls,
    /// Port writes that are on their way.
    pub(crate) coalesced: Option<Arc<dyn CoalescedWrites>>,
}

/// Answers the exits of one vCPU.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    platform: Arc<Platform>,
    scratch: Scratch,
    control: Arc<Control>,
    /// When the time is up that the machine was given.
    deadline: Option<Instant>,
}

impl Dispatcher {
    pub(crate) fn new(platform: Arc<Platform>, control: Arc<Control>, deadline: Option<Instant>) -> Self {
        Self { platform, scratch: Scratch::default(), control, deadline }
    }

    fn port_out(&mut self, vcpu: &mut dyn Vcpu, port: u16, width: u8, value: u32) -> ControlFlow<End, Entry> {
        loop {
            let calls = &self.platform.calls;
            let next = if let Some(call) = v2::Call::from_port(port) {
                match vcpu.regs() {
                    Ok(regs) => calls.v2(call, regs.rdi, &mut self.scratch),
                    Err(error) => return ControlFlow::Break(End::Host(error.into())),
                }
            } else if let Some(call) = v1::Call::from_port(port) {
                calls.v1(call, value, vcpu, &mut self.scratch)
            } else {
                if let Some(width) = Width::new(width) {
                    self.platform.ports.write(port.into(), width, value.into());
                }
                Next::Resume
            };
            if let Some(next) = self.after(vcpu, next) {
                return next;
            }
        }
    }

    fn port_in(&self, vcpu: &mut dyn Vcpu, port: u16, width: u8) -> ControlFlow<End, Entry> {
        if v2::Call::from_port(port) != Some(v2::Call::SerialReadByte) {
            return read(&self.platform.ports, port.into(), width);
        }
        loop {
            let next = match self.platform.calls.read_serial_byte() {
                Ok(value) => return ControlFlow::Continue(Entry::Data(value.into())),
                Err(next) => self.after(vcpu, next),
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// How the vCPU goes on after a call; `None` if the call is to be made again.
    fn after(&self, vcpu: &mut dyn Vcpu, next: Next) -> Option<ControlFlow<End, Entry>> {
        Some(match next {
            Next::Resume => ControlFlow::Continue(Entry::Resume),
            Next::Exit(code) => ControlFlow::Break(End::Exited(code)),
            Next::Host(error) => ControlFlow::Break(End::Host(Error::Output(error))),
            Next::Stopped => ControlFlow::Break(End::Stopped),
            Next::Again => match self.control.service_requests(vcpu, RunState::InService) {
                ControlFlow::Break(()) => ControlFlow::Break(End::Stopped),
                ControlFlow::Continue(()) if self.is_late() => ControlFlow::Break(End::TimeLimit),
                ControlFlow::Continue(()) => return None,
            },
        })
    }

    fn is_late(&self) -> bool {
        is_over(self.deadline)
    }
}

/// Whether the machine's time is up.
fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// Answers what no device of any platform answers.
pub(crate) fn handle_common(
    exit: Exit,
    stopping: &AtomicBool,
    deadline: Option<Instant>,
) -> ControlFlow<End, Entry> {
    match exit {
        Exit::Kicked if stopping.load(Ordering::Acquire) => ControlFlow::Break(End::Stopped),
        Exit::Kicked if is_over(deadline) => ControlFlow::Break(End::TimeLimit),
        Exit::Kicked => ControlFlow::Continue(Entry::Resume),
        // The guest's registers that no engine knows do not exist for it.
        Exit::MsrRead { .. } | Exit::MsrWrite { .. } => ControlFlow::Continue(Entry::Fault),
        Exit::System(event @ (SystemEvent::PowerOff | SystemEvent::Reset)) => {
            ControlFlow::Break(End::System(event))
        }
        other => ControlFlow::Break(End::Crashed(other)),
    }
}

pub(crate) fn read(bus: &Bus, address: u64, width: u8) -> ControlFlow<End, Entry> {
    ControlFlow::Continue(match Width::new(width) {
        Some(width) => Entry::Data(bus.read(address, width)),
        None => Entry::Resume,
    })
}

impl Handler for Dispatcher {
    type End = End;

    fn handle(&mut self, vcpu: &mut dyn Vcpu, exit: Exit) -> ControlFlow<End, Entry> {
        // The guest made these before what it left for.
        if let Err(next) = self.platform.settle_coalesced()
            && let Some(next) = self.after(vcpu, next)
        {
            return next;
        }
        match exit {
            Exit::PortOut { port, width, value } => self.port_out(vcpu, port, width, value),
            Exit::PortIn { port, width } => self.port_in(vcpu, port, width),
            Exit::MmioRead { address, width } => read(&self.platform.mmio, address, width),
            Exit::MmioWrite { address, width, value } => {
                if let Some(width) = Width::new(width) {
                    self.platform.mmio.write(address, width, value);
                }
                ControlFlow::Continue(Entry::Resume)
            }
            other => handle_common(other, &self.platform.calls.stopping, self.deadline),
        }
    }
}

#[cfg(test)]
#[path = "dispatch_test.rs"]
mod tests;
