//! Answers the exits of one vCPU of a PC.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use nerite_bus::Width;
use nerite_devices::pc::Request;
use nerite_platform::{End, Stop, handle_common, read_bus};
use nerite_vcpu::{Entry, Exit, Handler, SystemEvent, Vcpu};

use crate::Error;
use crate::platform::{Devices, ports};

/// Answers the exits of one vCPU: everything goes to the buses.
#[derive(Debug)]
pub(crate) struct PcDispatcher {
    devices: Arc<Devices>,
    /// When the time is up that the machine was given.
    deadline: Option<Instant>,
}

impl PcDispatcher {
    pub(crate) fn new(devices: Arc<Devices>, deadline: Option<Instant>) -> Self {
        Self { devices, deadline }
    }

    fn port_out(&self, port: u16, width: u8, value: u32) -> ControlFlow<Stop, Entry> {
        let devices = &self.devices;
        if port == ports::SERIAL
            && let Some(rate) = &devices.rate
        {
            // Before the port's lock is taken, so that others can use it meanwhile.
            match rate.wait(1, &devices.console, &devices.stop) {
                Ok(true) => {}
                Ok(false) => return ControlFlow::Break(Ok(End::Stopped)),
                Err(error) => return ControlFlow::Break(Err(Error::Output(error))),
            }
        }
        if let Some(width) = Width::new(width) {
            devices.ports.write(port.into(), width, value.into());
        }
        self.after_write()
    }

    /// Does what a device asks for, if one does.
    fn after_write(&self) -> ControlFlow<Stop, Entry> {
        match self.devices.requests.take() {
            None => ControlFlow::Continue(Entry::Resume),
            Some(request) => ControlFlow::Break(match request {
                Request::PowerOff => Ok(End::System(SystemEvent::PowerOff)),
                Request::Reset(kind) => Ok(End::Reset(kind)),
                Request::Panicked => Ok(End::Crashed(Exit::System(SystemEvent::Crash))),
                Request::Exit(code) => Ok(End::Exited(code.into())),
                Request::Failed(_) if self.devices.stop.is_requested() => Ok(End::Stopped),
                Request::Failed(error) => Err(Error::Output(error)),
            }),
        }
    }
}

impl Handler for PcDispatcher {
    type End = Stop;

    fn handle(&mut self, _vcpu: &mut dyn Vcpu, exit: &Exit) -> ControlFlow<Stop, Entry> {
        match *exit {
            Exit::PortOut { port, width, value } => self.port_out(port, width, value),
            Exit::PortIn { port, width } => read_bus(&self.devices.ports, port.into(), width),
            Exit::MmioRead { address, width } => read_bus(&self.devices.mmio, address, width),
            Exit::MmioWrite { address, width, value } => {
                if let Some(width) = Width::new(width) {
                    self.devices.mmio.write(address, width, value);
                }
                self.after_write()
            }
            other => handle_common(other, &self.devices.stop, self.deadline),
        }
    }
}

#[cfg(test)]
#[path = "dispatch_test.rs"]
mod tests;
