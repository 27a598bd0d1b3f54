#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod coalesced;
mod controller;
mod counter;
mod debug;
mod direct;
mod error;
mod exit;
mod hypervisor;
mod instructions;
mod kick;
mod layer;
mod operands;
#[cfg(any(test, feature = "scripted"))]
pub mod scripted;
mod state;
mod statistics;
mod vcpu;

// Crates whose types are in this one's interface.
pub use nerite_arch;
pub use nerite_event;
pub use nerite_irqchip;
pub use nerite_memory;

pub use coalesced::{CoalescedWrite, CoalescedWrites};
pub use controller::{InterruptController, LINES, MessageId};
pub use counter::{CounterKind, GuestCounter};
pub use debug::{
    DEBUG_REGISTERS, DebugCaps, DebugCause, DebugControl, DebugPlan, DebugPoint, DebugStop,
    Debugger, GuestDebug, PointKind, WatchKind, Watchpoint,
};
pub use direct::{DirectInterrupts, InterruptState};
pub use error::Error;
pub use exit::{Entry, Exit, ExitKind, InstructionBytes, InternalError, SystemEvent};
pub use hypervisor::{
    Capabilities, Doorbells, Hypervisor, Irqchip, VcpuStart, VirtualClock, Vm, VmOptions,
};
pub use instructions::{Executions, InstructionBudget, InstructionCounter, Lease};
pub use kick::{Kick, KickTimer, Kicker};
pub use layer::Layer;
pub use operands::{Access, OperandDecoder};
pub use state::{
    Activity, DebugRegs, PARAVIRTUAL_MSRS, ParavirtualMsr, PendingEvents, PendingException,
    STATE_VERSION, StateError, VcpuState, VmState, absent_value, is_untouched, synchronise_tscs,
};
pub use statistics::{ExitCounts, Histogram, KernelCounts, Statistics};
pub use vcpu::Vcpu;
