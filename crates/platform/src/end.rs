//! The end of a vCPU, and exits that no platform handles in its own way.

use std::ops::ControlFlow;
use std::time::Instant;

use nerite_bus::{Bus, Width};
use nerite_devices::pc::ResetKind;
use nerite_vcpu::{Entry, Exit, SystemEvent};

use crate::{Error, StopToken};

/// Reason of a vCPU to leave its loop, and with that the end of its machine.
#[derive(Debug)]
pub enum End {
    /// The guest ended itself with this code.
    Exited(i32),
    /// The guest cannot be resumed.
    Crashed(Exit),
    /// All vCPUs have halted, and no interrupt can wake them.
    Halted,
    /// The guest asked for power-off or reset.
    System(SystemEvent),
    /// The guest reset itself in this way.
    Reset(ResetKind),
    /// The machine is being stopped.
    Stopped,
    /// The time limit is reached.
    TimeLimit,
    /// The escape key was typed.
    EscapeKey,
    /// All instructions of the budget are executed; the next one is at this address.
    InstructionLimit(u64),
}

/// An end of the guest's, or a failure of the host.
pub type Stop = Result<End, Error>;

/// Returns `true` if the machine's time is up.
fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// Handles exits that no device of any platform handles: kicks, system events, and what a guest
/// cannot resume from. Exits of model-specific registers are handled before.
pub fn handle_common(
    exit: Exit,
    stop: &StopToken,
    deadline: Option<Instant>,
) -> ControlFlow<Stop, Entry> {
    match exit {
        Exit::Kicked if stop.is_requested() => ControlFlow::Break(Ok(End::Stopped)),
        Exit::Kicked if is_over(deadline) => ControlFlow::Break(Ok(End::TimeLimit)),
        Exit::Kicked => ControlFlow::Continue(Entry::Resume),
        Exit::InstructionLimit { rip } => ControlFlow::Break(Ok(End::InstructionLimit(rip))),
        Exit::System(event @ (SystemEvent::PowerOff | SystemEvent::Reset)) => {
            ControlFlow::Break(Ok(End::System(event)))
        }
        other => ControlFlow::Break(Ok(End::Crashed(other))),
    }
}

/// Reads a bus for an exit.
pub fn read_bus(bus: &Bus, address: u64, width: u8) -> ControlFlow<Stop, Entry> {
    ControlFlow::Continue(match Width::new(width) {
        Some(width) => Entry::Data(bus.read(address, width)),
        None => Entry::Resume,
    })
}
