#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

pub mod ahead;
mod assisted;
mod control;
mod counted;
mod debug;
mod limit;
mod measured;
mod run_state;
mod sync;
mod trace;

use std::ops::ControlFlow;

// Crates whose types are in this one's interface.
pub use nerite_arch;
pub use nerite_hypervisor;
pub use nerite_memory;

pub use nerite_hypervisor::{
    Access, CoalescedWrite, CoalescedWrites, DEBUG_REGISTERS, DebugCaps, DebugCause, DebugControl,
    DebugPlan, DebugPoint, DebugStop, Debugger, DirectInterrupts, Entry, Error, Executions, Exit,
    ExitCounts, ExitKind, GuestDebug, Histogram, InstructionBudget, InstructionBytes,
    InternalError, InterruptState, KernelCounts, Kick, KickTimer, Kicker, Layer, OperandDecoder,
    PointKind, Statistics, SystemEvent, Vcpu, WatchKind, Watchpoint,
};

pub use assisted::{Assistance, Assisted};
pub use control::{AskError, Control, HaltWait, Held, Job};
pub use counted::Counted;
pub use debug::Debugged;
pub use limit::Limited;
pub use measured::Measured;
pub use run_state::RunState;
pub use trace::{Traced, Tracer};

/// Answers the exits of a vCPU.
pub trait Handler {
    /// Reason why the loop ended.
    type End;

    /// Answers one exit, or ends the loop.
    fn handle(&mut self, vcpu: &mut dyn Vcpu, exit: &Exit) -> ControlFlow<Self::End, Entry>;
}

/// Runs `vcpu` until `handler` ends the loop.
///
/// # Errors
/// The first error of the hypervisor.
pub fn drive<H: Handler + ?Sized>(vcpu: &mut dyn Vcpu, handler: &mut H) -> Result<H::End, Error> {
    let mut entry = Entry::Resume;
    loop {
        let result = vcpu.run(entry);
        let exit = match result {
            Ok(ref exit) => exit,
            Err(error) => return Err(error),
        };
        match handler.handle(vcpu, exit) {
            ControlFlow::Continue(next) => entry = next,
            ControlFlow::Break(end) => return Ok(end),
        }
    }
}

/// Runs `vcpu` until `handler` ends the loop or `control` does, which is `None`.
///
/// The handler sees [`Exit::Kicked`] too, after the control's inbox is empty.
///
/// # Errors
/// The first error of the hypervisor.
pub fn drive_controlled<H: Handler + ?Sized>(
    vcpu: &mut dyn Vcpu,
    handler: &mut H,
    control: &Control,
) -> Result<Option<H::End>, Error> {
    let mut entry = Entry::Resume;
    loop {
        control.entering();
        // In its place: a copy of what has just been written takes long.
        let result = vcpu.run(entry);
        let exit = match result {
            Ok(ref exit) => exit,
            Err(error) => return Err(error),
        };
        if *exit == Exit::Kicked && control.service_requests(vcpu, RunState::Paused).is_break() {
            return Ok(None);
        }
        control.serving();
        match handler.handle(vcpu, exit) {
            ControlFlow::Continue(next) => entry = next,
            ControlFlow::Break(end) => return Ok(Some(end)),
        }
        control.answered();
    }
}

/// Completes whatever the last exit left half done, so that state may be read, saved or changed.
///
/// `entry` answers the last exit. Further accesses of the same instruction go to `handler`.
///
/// # Errors
/// The first error of the hypervisor.
pub fn drain<H: Handler + ?Sized>(
    vcpu: &mut dyn Vcpu,
    handler: &mut H,
    mut entry: Entry,
) -> Result<ControlFlow<H::End>, Error> {
    while let Some(exit) = vcpu.complete(entry)? {
        match handler.handle(vcpu, &exit) {
            ControlFlow::Continue(next) => entry = next,
            ControlFlow::Break(end) => return Ok(ControlFlow::Break(end)),
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests;
