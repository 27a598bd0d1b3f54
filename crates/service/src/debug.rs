//! Stops of vCPUs for a debugger.

use nerite_vcpu::{DebugStop, Exit};

/// A stop of a vCPU for the debugger. The vCPU is held, once, until the debugger releases it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugEvent {
    /// Index of the vCPU.
    pub vcpu: usize,
    /// Reason of the stop.
    pub why: DebugReason,
}

/// Reason of a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DebugReason {
    /// A breakpoint, watchpoint or step of the debugger.
    Stop(DebugStop),
    /// A crash, which ends the machine once the vCPU is released.
    Crash(Exit),
}
