//! Answers the exits of one vCPU of a PC.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use nerite_bus::Width;
use nerite_devices::pc::Request;
use nerite_vcpu::{Entry, Exit, Handler, SystemEvent, Vcpu};

use super::platform::{PcPlatform, ports};
use crate::Error;
use crate::dispatch::{End, handle_common, read};

/// Answers the exits of one vCPU: everything goes to the buses.
#[derive(Debug)]
pub(crate) struct PcDispatcher {
    platform: Arc<PcPlatform>,
    /// When the time is up that the machine was given.
    deadline: Option<Instant>,
}

impl PcDispatcher {
    pub(crate) fn new(platform: Arc<PcPlatform>, deadline: Option<Instant>) -> Self {
        Self { platform, deadline }
    }

    fn port_out(&self, port: u16, width: u8, value: u32) -> ControlFlow<End, Entry> {
        let platform = &self.platform;
        if port == ports::SERIAL
            && let Some(rate) = &platform.rate
        {
            // Before the port's lock is taken, so that others can go on meanwhile.
            match rate.wait(1, &platform.console, &platform.stop_event) {
                Ok(true) => {}
                Ok(false) => return ControlFlow::Break(End::Stopped),
                Err(error) => return ControlFlow::Break(End::Host(Error::Output(error))),
            }
        }
        if let Some(width) = Width::new(width) {
            platform.ports.write(port.into(), width, value.into());
        }
        self.after_write()
    }

    /// Does what a device asks for, if one does.
    fn after_write(&self) -> ControlFlow<End, Entry> {
        match self.platform.requests.take() {
            None => ControlFlow::Continue(Entry::Resume),
            Some(request) => ControlFlow::Break(match request {
                Request::PowerOff => End::System(SystemEvent::PowerOff),
                Request::Reset(kind) => End::Reset(kind),
                Request::Exit(code) => End::Exited(code.into()),
                Request::Failed(_) if self.is_stopping() => End::Stopped,
                Request::Failed(error) => End::Host(Error::Output(error)),
            }),
        }
    }

    fn is_stopping(&self) -> bool {
        self.platform.stopping.load(Ordering::Acquire)
    }
}

impl Handler for PcDispatcher {
    type End = End;

    fn handle(&mut self, _vcpu: &mut dyn Vcpu, exit: Exit) -> ControlFlow<End, Entry> {
        match exit {
            Exit::PortOut { port, width, value } => self.port_out(port, width, value),
            Exit::PortIn { port, width } => read(&self.platform.ports, port.into(), width),
            Exit::MmioRead { address, width } => read(&self.platform.mmio, address, width),
            Exit::MmioWrite { address, width, value } => {
                if let Some(width) = Width::new(width) {
                    self.platform.mmio.write(address, width, value);
                }
                self.after_write()
            }
            other => handle_common(other, &self.platform.stopping, self.deadline),
        }
    }
}

#[cfg(test)]
#[path = "dispatch_test.rs"]
mod tests;
