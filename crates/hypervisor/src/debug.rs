//! Debugging a guest: the abilities of a hypervisor, and the plan of a debugger.

use std::sync::Arc;

use crate::Error;

/// Number of addresses that a processor can watch (DR0 to DR3, Intel SDM vol. 3, 18.2).
pub const DEBUG_REGISTERS: usize = 4;

/// Debugging abilities of a hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DebugCaps {
    /// `int3` in the guest's memory ends a step with [`crate::Exit::Debug`].
    pub software: bool,
    /// [`GuestDebug::points`] end a step.
    pub hardware: bool,
}

/// Accesses at which a [`DebugPoint`] ends a step. Lengths are 1, 2, 4 or 8 bytes, and the address
/// is a multiple of the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointKind {
    /// Execution of the instruction at the address, before it.
    Execute,
    /// Writes, after the instruction.
    Write {
        /// Length in bytes.
        length: u8,
    },
    /// Reads and writes, after the instruction.
    Access {
        /// Length in bytes.
        length: u8,
    },
}

/// An address at which a step ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DebugPoint {
    /// Guest-virtual address.
    pub address: u64,
    /// Accesses that end the step.
    pub kind: PointKind,
}

/// Events that end a step with [`crate::Exit::Debug`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuestDebug {
    /// `true` ends the step after one instruction.
    pub single_step: bool,
    /// `true` keeps interrupts pending meanwhile.
    pub block_interrupts: bool,
    /// `true` ends the step at `int3`.
    pub software: bool,
    /// `true` ends the step at each debug exception (#DB), also at the guest's own.
    pub trap: bool,
    /// Addresses, with [`Self::trap`]; a hit is reported by its index ([`DebugCause::Trap`]).
    pub points: [Option<DebugPoint>; DEBUG_REGISTERS],
}

/// Cause of an [`crate::Exit::Debug`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugCause {
    /// `int3` (#BP).
    Breakpoint,
    /// A debug exception (#DB).
    Trap {
        /// Bit n is set if [`GuestDebug::points`]\[n\] was hit.
        points: u8,
        /// `true` if one instruction was executed.
        single_step: bool,
    },
}

impl DebugCause {
    /// One instruction was executed.
    pub const STEP: Self = Self::Trap { points: 0, single_step: true };
    /// A debug exception without a known cause.
    pub const TRAP: Self = Self::Trap { points: 0, single_step: false };
}

/// The ability of a vCPU to end its steps at addresses or after one instruction.
pub trait DebugControl {
    /// Sets what ends the next steps, in place of what was set before.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    fn set_guest_debug(&mut self, debug: &GuestDebug) -> Result<(), Error>;
}

/// Accesses that a [`Watchpoint`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WatchKind {
    /// Writes.
    Write,
    /// Reads.
    Read,
    /// Reads and writes.
    Access,
}

/// Memory at which to stop after an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Watchpoint {
    /// Guest-virtual address.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
    /// Accesses that stop.
    pub kind: WatchKind,
}

/// Plan of a debugger for a vCPU that is resumed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DebugPlan {
    /// `true` stops after one instruction; no interrupt is taken before it.
    pub step: bool,
    /// Guest-virtual addresses of instructions before which to stop.
    pub breakpoints: Arc<[u64]>,
    /// Memory at which to stop.
    pub watchpoints: Arc<[Watchpoint]>,
    /// `true` stops at `int3` in the guest's memory; only with [`DebugCaps::software`].
    pub software: bool,
}

impl DebugPlan {
    /// Returns `true` if there is anything to stop at.
    pub fn is_active(&self) -> bool {
        self.step || self.software || !self.breakpoints.is_empty() || !self.watchpoints.is_empty()
    }
}

/// Cause of a stop for the debugger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugStop {
    /// One instruction was executed.
    Step,
    /// The vCPU is before an instruction at which to stop.
    Breakpoint,
    /// An instruction has accessed watched memory.
    Watch(Watchpoint),
}

/// The ability of a vCPU to follow a [`DebugPlan`], which a layer adds.
pub trait Debugger {
    /// Sets the plan for the next steps.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    fn set_debug_plan(&mut self, plan: &DebugPlan) -> Result<(), Error>;

    /// Takes the cause of the last step's end, if that was [`crate::Exit::Debug`].
    fn take_debug_stop(&mut self) -> Option<DebugStop>;
}
