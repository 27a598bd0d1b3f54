//! A running machine as control sockets and debuggers see it (`nerite-service`).

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nerite_log_budget::Causes;
use nerite_memory::GuestRam;
use nerite_sandbox::ThreadKind;
use nerite_service::{
    BalloonReport, ControlTarget, DebugEvent, DebugTarget, DeviceCounters, Machine,
    ProcessorCounts, Refusal, SnapshotReport, SwitchReport,
};
use nerite_snapshot::Files;
use nerite_vcpu::{DEBUG_REGISTERS, Held, Job, RunState};

use crate::handle::PATIENCE;
use crate::{BalloonError, Handle, HandleError, SwitchError, hypercall_name};

/// Refusal for a network card that is none of `count`.
fn no_card(card: &str, count: usize) -> Refusal {
    Refusal::NotThere(match count.checked_sub(1) {
        None => "this machine has no network card".to_owned(),
        Some(last) => {
            format!("network card {card:?} does not exist (cards are 0..={last}, or their taps)")
        }
    })
}

impl From<HandleError> for Refusal {
    fn from(error: HandleError) -> Self {
        let text = Causes(&error).to_string();
        match error {
            HandleError::NoSuchVcpu { .. } | HandleError::NoSuchLine { .. } => Self::NotThere(text),
            HandleError::NoMessage { .. } => Self::Invalid(text),
            _ => Self::Failed(text),
        }
    }
}

impl Machine for Handle {
    fn vcpu_count(&self) -> usize {
        self.controls.len()
    }

    fn states(&self) -> Vec<RunState> {
        self.states()
    }

    fn hold(&self, vcpu: usize) {
        if let Ok(control) = self.control(vcpu) {
            control.hold();
        }
    }

    fn wait_held(&self, vcpu: usize) -> Held {
        self.control(vcpu).map_or(Held::Stopped, |control| control.wait_held(PATIENCE))
    }

    fn release(&self, vcpu: usize) {
        if let Ok(control) = self.control(vcpu) {
            control.release();
        }
    }

    fn post(&self, vcpu: usize, job: Job) {
        if let Ok(control) = self.control(vcpu) {
            control.post(job);
        }
    }

    fn ask(&self, vcpu: usize, job: Job) -> Result<(), Refusal> {
        Ok(self.ask(vcpu, job)?)
    }

    fn ram(&self) -> &GuestRam {
        self.ram()
    }

    fn port_name(&self, port: u16) -> Option<&'static str> {
        hypercall_name(port)
    }

    fn stop(&self) {
        self.stop();
    }

    fn is_ending(&self) -> bool {
        self.is_ending()
    }

    fn confine_thread(&self) -> Result<(), Refusal> {
        self.confine_thread(ThreadKind::Control)
            .map_err(|error| Refusal::Failed(Causes(&error).to_string()))
    }
}

impl ControlTarget for Handle {
    fn uptime(&self) -> Duration {
        self.uptime()
    }

    fn coalesced_writes(&self) -> u64 {
        self.coalesced_writes()
    }

    fn processor_counts(&self) -> Option<ProcessorCounts> {
        let counts = self.processor_counts()?;
        Some(ProcessorCounts { instructions: counts.instructions, cycles: counts.cycles })
    }

    fn device_counters(&self) -> Vec<DeviceCounters> {
        self.device_counters()
    }

    fn set_line(&self, line: u32, level: bool) -> Result<(), Refusal> {
        Ok(self.set_line(line, level)?)
    }

    fn send_message(&self, address: u64, data: u32) -> Result<(), Refusal> {
        Ok(self.send_message(address, data)?)
    }

    fn set_link(&self, card: &str, up: bool) -> Result<usize, Refusal> {
        let network = self.network();
        let number = network.find(card).ok_or_else(|| no_card(card, network.len()))?;
        network.set_link(number, up);
        Ok(number)
    }

    fn press_power_button(&self) -> Result<(), Refusal> {
        if self.press_power_button() {
            return Ok(());
        }
        Err(Refusal::NotThere("this machine has no power button".to_owned()))
    }

    fn balloon(&self, size: Option<u64>) -> Result<BalloonReport, Refusal> {
        size.map(|size| self.set_balloon(size)).transpose()?;
        Ok(self.balloon().ok_or(BalloonError::NotThere)?)
    }

    fn accelerator(&self) -> String {
        self.accelerator()
    }

    fn switch_accelerator(&self, name: &str) -> Result<SwitchReport, Refusal> {
        self.switch_accelerator(name).map_err(|error| match error {
            SwitchError::NotThere { .. } => Refusal::NotThere(error.to_string()),
            error => Refusal::Failed(Causes(&error).to_string()),
        })
    }

    fn snapshot(&self, files: &Files) -> Result<SnapshotReport, Refusal> {
        self.snapshot(files).map_err(|error| Refusal::Failed(Causes(&error).to_string()))
    }
}

impl DebugTarget for Handle {
    fn is_debuggable(&self) -> bool {
        self.debug.is_some()
    }

    fn debug_registers(&self) -> usize {
        if self.debug_caps().hardware { DEBUG_REGISTERS } else { 0 }
    }

    fn prepare_steps(&self, stepped: bool) -> bool {
        self.prepare_steps(stepped)
    }

    fn kernel_offset(&self) -> u64 {
        self.kernel_offset()
    }

    fn take_event(&self) -> Option<DebugEvent> {
        self.debug.as_ref()?.take()
    }

    fn set_attached(&self, attached: bool) {
        if let Some(events) = &self.debug {
            events.set_attached(attached);
        }
    }

    fn exit_code(&self) -> Option<i32> {
        self.exit_code()
    }

    fn event_fds(&self) -> [BorrowedFd<'_>; 2] {
        let end = self.end_event();
        [self.debug.as_ref().map_or(end, |events| events.fd()), end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_does_not_exist_is_told_from_no_card() {
        assert_eq!(no_card("tap0", 0).to_string(), "this machine has no network card");
        let text = no_card("tap0", 2).to_string();
        assert_eq!(text, "network card \"tap0\" does not exist (cards are 0..=1, or their taps)");
    }
}
