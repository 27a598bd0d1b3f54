//! Answers the exits of one vCPU.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use nerite_bus::{Bus, Width};
use nerite_hypercall::{v1, v2};
use nerite_pci::ConfigPorts;
use nerite_platform::{End, Stop, handle_common, read_bus};
use nerite_vcpu::{CoalescedWrites, Control, Entry, Exit, Handler, RunState, Vcpu};

use crate::Error;
use crate::hypercalls::{Hypercalls, Next, Scratch};

/// State shared by all vCPUs of a machine: the two address spaces and the hypercalls.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ports: Bus,
    pub(crate) mmio: Bus,
    pub(crate) pci: Arc<ConfigPorts>,
    pub(crate) calls: Hypercalls,
    /// Port writes that are on their way.
    pub(crate) coalesced: Option<Arc<dyn CoalescedWrites>>,
}

/// Answers the exits of one vCPU.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    scratch: Scratch,
    control: Arc<Control>,
    /// When the time is up that the machine was given.
    deadline: Option<Instant>,
}

impl Dispatcher {
    pub(crate) fn new(
        shared: Arc<Shared>,
        control: Arc<Control>,
        deadline: Option<Instant>,
    ) -> Self {
        Self { shared, scratch: Scratch::default(), control, deadline }
    }

    fn port_out(
        &mut self,
        vcpu: &mut dyn Vcpu,
        port: u16,
        width: u8,
        value: u32,
    ) -> ControlFlow<Stop, Entry> {
        loop {
            let calls = &self.shared.calls;
            let next = if let Some(call) = v2::Call::from_port(port) {
                match vcpu.regs() {
                    Ok(regs) => calls.v2(call, regs.rdi, &mut self.scratch),
                    Err(error) => return ControlFlow::Break(Err(error.into())),
                }
            } else if let Some(call) = v1::Call::from_port(port) {
                calls.v1(call, value, vcpu, &mut self.scratch)
            } else {
                if let Some(width) = Width::new(width) {
                    self.shared.ports.write(port.into(), width, value.into());
                }
                Next::Resume
            };
            if let Some(next) = self.after(vcpu, next) {
                return next;
            }
        }
    }

    fn port_in(&self, vcpu: &mut dyn Vcpu, port: u16, width: u8) -> ControlFlow<Stop, Entry> {
        if v2::Call::from_port(port) != Some(v2::Call::SerialReadByte) {
            return read_bus(&self.shared.ports, port.into(), width);
        }
        loop {
            let next = match self.shared.calls.read_serial_byte() {
                Ok(value) => return ControlFlow::Continue(Entry::Data(value.into())),
                Err(next) => self.after(vcpu, next),
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// Continuation of the vCPU after a call; `None` if the call is to be made again.
    fn after(&self, vcpu: &mut dyn Vcpu, next: Next) -> Option<ControlFlow<Stop, Entry>> {
        Some(match next {
            Next::Resume => ControlFlow::Continue(Entry::Resume),
            Next::Exit(code) => ControlFlow::Break(Ok(End::Exited(code))),
            Next::Host(error) => ControlFlow::Break(Err(Error::Output(error))),
            Next::Stopped => ControlFlow::Break(Ok(End::Stopped)),
            Next::Again => match self.control.service_requests(vcpu, RunState::InService) {
                ControlFlow::Break(()) => ControlFlow::Break(Ok(End::Stopped)),
                ControlFlow::Continue(()) if self.is_late() => {
                    ControlFlow::Break(Ok(End::TimeLimit))
                }
                ControlFlow::Continue(()) => return None,
            },
        })
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

impl Handler for Dispatcher {
    type End = Stop;

    fn handle(&mut self, vcpu: &mut dyn Vcpu, exit: &Exit) -> ControlFlow<Stop, Entry> {
        // The guest made these before what it left for.
        if let Err(next) = self.shared.settle_coalesced()
            && let Some(next) = self.after(vcpu, next)
        {
            return next;
        }
        match *exit {
            Exit::PortOut { port, width, value } => self.port_out(vcpu, port, width, value),
            Exit::PortIn { port, width } => self.port_in(vcpu, port, width),
            Exit::MmioRead { address, width } => read_bus(&self.shared.mmio, address, width),
            Exit::MmioWrite { address, width, value } => {
                if let Some(width) = Width::new(width) {
                    self.shared.mmio.write(address, width, value);
                }
                ControlFlow::Continue(Entry::Resume)
            }
            other => handle_common(other, &self.shared.calls.stop, self.deadline),
        }
    }
}

#[cfg(test)]
#[path = "dispatch_test.rs"]
mod tests;
