//! A hypervisor-neutral virtual CPU: **one step, plain data in, plain data out.**
//!
//! ```text
//!            Entry (answer to the last exit)
//!   caller ────────────────────────────────▶ Vcpu::run ──▶ guest runs
//!          ◀────────────────────────────────            ◀── something needs the caller
//!            Exit (what the guest needs now)
//! ```
//!
//! [`Vcpu::run`] enters the guest and comes back with an [`Exit`]; the answer travels in with the next [`Entry`].
//! Neither borrows from the vCPU, so an exit can be logged, recorded, replayed or answered by another engine.
//! The loop around the step is [`drive`], eight lines long. Whatever wants to watch (counting, tracing, stepping) wraps the
//! [`Vcpu`], as [`Counted`] does, and costs nothing where it is not used.
//!
//! An engine may also collect writes that need no answer while the guest goes on: [`PostedWrites`] says what their taker owes.
//!
//! A vCPU belongs to one thread. Other threads reach it only through its [`Kicker`], which makes the running
//! (or next) step end with [`Exit::Kicked`]. A kick is never lost, and one kick ends one step.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod ahead;
mod control;
mod counted;
mod debug;
mod error;
mod exit;
mod interrupts;
mod kick;
mod layer;
mod limit;
mod posted;
mod run_state;
#[cfg(any(test, feature = "scripted"))]
pub mod scripted;
mod statistics;
mod sync;
mod trace;

use std::ops::ControlFlow;

use nerite_arch::{Fpu, Regs, SpecialRegs};

pub use control::{AskError, Attended, Control, Held, Job, Rested};
pub use counted::{Counted, ExitCounts};
pub use debug::{
    Access, DEBUG_REGISTERS, DR6_SINGLE_STEP, DebugPlan, DebugStop, Debugged, EngineDebug, Foresee, Native,
    WatchKind, Watchpoint,
};
pub use error::Error;
pub use exit::{Entry, Exit, InstructionBytes, InternalError, Kind, SystemEvent};
pub use interrupts::{DirectInterrupts, InterruptState};
pub use kick::{Kick, Kicker};
pub use layer::Layer;
pub use limit::{InstructionBudget, Limited};
pub use posted::{PostedWrite, PostedWrites};
pub use run_state::RunState;
pub use statistics::{Histogram, KernelCounts, Measured, Statistics};
pub use trace::{Traced, Tracer};

/// One virtual CPU of some engine (KVM, a software CPU, a script in a test).
pub trait Vcpu {
    /// The index of this vCPU in its machine, from 0. It is also its APIC id.
    fn index(&self) -> u32;

    /// Hands over the answer to the last exit, then runs the guest until something needs the caller.
    ///
    /// # Errors
    /// Only if the engine itself fails. Whatever the guest does is an [`Exit`].
    fn run(&mut self, entry: Entry) -> Result<Exit, Error>;

    /// Hands over the answer to the last exit *without executing a further guest instruction*.
    ///
    /// After a port or MMIO exit the instruction that caused it is only half done. Registers may be read, saved or
    /// changed only once it is complete. Returns `None` when the vCPU is drained, and an exit if the same instruction
    /// needs another answer first (a string input, an access that the engine splits): answer that one, and
    /// call again.
    ///
    /// # Errors
    /// As [`Vcpu::run`].
    fn complete(&mut self, entry: Entry) -> Result<Option<Exit>, Error>;

    /// The general registers.
    ///
    /// # Errors
    /// If the engine fails.
    fn regs(&mut self) -> Result<Regs, Error>;

    /// Sets the general registers.
    ///
    /// # Errors
    /// If the engine fails.
    fn set_regs(&mut self, regs: &Regs) -> Result<(), Error>;

    /// Segment, descriptor table and control registers.
    ///
    /// # Errors
    /// If the engine fails.
    fn special_regs(&mut self) -> Result<SpecialRegs, Error>;

    /// Sets segment, descriptor table and control registers.
    ///
    /// # Errors
    /// If the engine fails, for example because it finds the combination invalid.
    fn set_special_regs(&mut self, regs: &SpecialRegs) -> Result<(), Error>;

    /// A handle by which any thread ends the running (or else the next) step of this vCPU.
    fn kicker(&self) -> Kicker;

    /// Takes back a kick that has not ended a step yet. Returns whether there was one.
    fn take_kick(&mut self) -> bool;

    /// Makes a non-maskable interrupt pending.
    ///
    /// # Errors
    /// If the engine fails, or has no such interrupts.
    fn inject_nmi(&mut self) -> Result<(), Error> {
        Err(Error::Unsupported { index: self.index(), what: "injecting an NMI" })
    }

    /// Whether it waits, in the engine, for an interrupt (it executed HLT and nothing came yet).
    ///
    /// # Errors
    /// If the engine fails, or does not know.
    fn is_halted(&mut self) -> Result<bool, Error> {
        Err(Error::Unsupported { index: self.index(), what: "asking whether it is halted" })
    }

    /// Makes the engine watch the guest, from the next step on.
    ///
    /// # Errors
    /// If the engine fails, or cannot do it.
    fn set_engine_debug(&mut self, _debug: &EngineDebug) -> Result<(), Error> {
        Err(Error::Unsupported { index: self.index(), what: "debugging" })
    }

    /// Says what to stop at; see [`Debugged`].
    ///
    /// # Errors
    /// If there is no such layer.
    fn set_debug_plan(&mut self, _plan: &DebugPlan) -> Result<(), Error> {
        Err(Error::Unsupported { index: self.index(), what: "debugging without --gdb" })
    }

    /// Why the last step ended with [`Exit::Debug`], once.
    fn take_debug_stop(&mut self) -> Option<DebugStop> {
        None
    }

    /// The registers of x87, SSE and AVX.
    ///
    /// # Errors
    /// If the engine fails, or does not tell.
    fn fpu(&mut self) -> Result<Fpu, Error> {
        Err(Error::Unsupported { index: self.index(), what: "reading the vector registers" })
    }

    /// Sets the registers of x87, SSE and AVX.
    ///
    /// # Errors
    /// If the engine fails, or cannot do it.
    fn set_fpu(&mut self, _fpu: &Fpu) -> Result<(), Error> {
        Err(Error::Unsupported { index: self.index(), what: "setting the vector registers" })
    }

    /// What was measured so far, if anything measures.
    fn statistics(&self) -> Option<Statistics> {
        None
    }
}

/// Answers the exits of a vCPU.
pub trait Handler<V: Vcpu + ?Sized> {
    /// Why the loop ended.
    type End;

    /// Answers one exit, or ends the loop.
    fn handle(&mut self, vcpu: &mut V, exit: Exit) -> ControlFlow<Self::End, Entry>;
}

/// Runs `vcpu` until `handler` ends the loop.
///
/// # Errors
/// The first error of the engine.
pub fn drive<V, H>(vcpu: &mut V, handler: &mut H) -> Result<H::End, Error>
where
    V: Vcpu + ?Sized,
    H: Handler<V>,
{
    let mut entry = Entry::Resume;
    loop {
        let exit = vcpu.run(entry)?;
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
/// The first error of the engine.
pub fn drive_controlled<V, H>(
    vcpu: &mut V,
    handler: &mut H,
    control: &Control,
) -> Result<Option<H::End>, Error>
where
    V: Vcpu,
    H: Handler<V>,
{
    let mut entry = Entry::Resume;
    loop {
        control.entering();
        let exit = vcpu.run(entry)?;
        if exit == Exit::Kicked && control.attend(vcpu, RunState::Paused) == Attended::Stop {
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
/// The first error of the engine.
pub fn drain<V, H>(vcpu: &mut V, handler: &mut H, mut entry: Entry) -> Result<ControlFlow<H::End>, Error>
where
    V: Vcpu + ?Sized,
    H: Handler<V>,
{
    while let Some(exit) = vcpu.complete(entry)? {
        match handler.handle(vcpu, exit) {
            ControlFlow::Continue(next) => entry = next,
            ControlFlow::Break(end) => return Ok(ControlFlow::Break(end)),
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests;

/// The README's example, kept true by running it.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
