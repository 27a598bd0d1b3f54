#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod debug;
mod devices;
mod ports;
mod query;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nerite_memory::GuestRam;
use nerite_snapshot::Files;
use nerite_vcpu::{Held, Job, RunState};

// Crates whose types are in this one's interface.
pub use nerite_arch;
pub use nerite_memory;
pub use nerite_snapshot;
pub use nerite_vcpu;

pub use debug::{DebugEvent, DebugReason};
pub use devices::{DeviceCounters, DeviceTables};
pub use ports::{PortCounts, port_counts};
pub use query::{inject_nmi, query, registers, statistics};

/// A running machine.
pub trait Machine: fmt::Debug + Send + Sync {
    /// Number of vCPUs.
    fn vcpu_count(&self) -> usize;
    /// State of each vCPU.
    fn states(&self) -> Vec<RunState>;
    /// Adds a hold to a vCPU and does not wait; ignored for a vCPU that does not exist.
    fn hold(&self, vcpu: usize);
    /// Waits until a vCPU that has a hold executes no instruction, for a limited time.
    fn wait_held(&self, vcpu: usize) -> Held;
    /// Takes back one hold.
    fn release(&self, vcpu: usize);
    /// Queues a job for a vCPU, which does it before it executes another instruction.
    fn post(&self, vcpu: usize, job: Job);
    /// Has a job done by a vCPU, held or not, and waits for it.
    ///
    /// # Errors
    /// If the vCPU does not exist, has stopped, or waits for the host.
    fn ask(&self, vcpu: usize, job: Job) -> Result<(), Refusal>;

    /// RAM of the guest.
    fn ram(&self) -> &GuestRam;
    /// Name of the hypercall that an access to a port makes, if it makes one.
    fn port_name(&self, port: u16) -> Option<&'static str>;

    /// Ends the machine. Does not wait for the end.
    fn stop(&self);
    /// Returns `true` if the machine is ending.
    fn is_ending(&self) -> bool;
    /// Sandboxes the calling thread permanently as the thread of a service.
    ///
    /// # Errors
    /// If the host refuses.
    fn confine_thread(&self) -> Result<(), Refusal>;
}

/// A machine for a control socket.
pub trait ControlTarget: Machine {
    /// Time since the start of the vCPUs.
    fn uptime(&self) -> Duration;
    /// Number of coalesced port writes.
    fn coalesced_writes(&self) -> u64;
    /// Counts of the host's processor for all vCPUs together, if it counts.
    fn processor_counts(&self) -> Option<ProcessorCounts>;
    /// Counters of each device that has some.
    fn device_counters(&self) -> Vec<DeviceCounters>;
    /// Raises (`true`) or lowers a line of the interrupt controllers.
    ///
    /// # Errors
    /// If the line does not exist, or the hypervisor refuses.
    fn set_line(&self, line: u32, level: bool) -> Result<(), Refusal>;
    /// Sends a message-signalled interrupt, as a device does that writes `data` to `address` (Intel
    /// SDM vol. 3, 12.11).
    ///
    /// # Errors
    /// If no processor takes it, or the hypervisor refuses.
    fn send_message(&self, address: u64, data: u32) -> Result<(), Refusal>;
    /// Sets the link of a network card, named by its number or its tap, up or down, and returns its
    /// number.
    ///
    /// # Errors
    /// If there is no such card.
    fn set_link(&self, card: &str, up: bool) -> Result<usize, Refusal>;
    /// Presses the power button of the machine: a guest that listens powers itself off.
    ///
    /// # Errors
    /// If the machine has no power button.
    fn press_power_button(&self) -> Result<(), Refusal>;
    /// Asks the guest for so many bytes of its memory in all, if a size is given, and returns the
    /// state of its balloon.
    ///
    /// # Errors
    /// If there is no balloon, or the guest has less memory.
    fn balloon(&self, size: Option<u64>) -> Result<BalloonReport, Refusal>;
    /// Writes a snapshot to empty files; that of the memory can have earlier memory, of which pages
    /// that differ are written. The machine stays as it was.
    ///
    /// # Errors
    /// If the machine cannot be saved, or not now, or a file cannot be written.
    fn snapshot(&self, files: &Files) -> Result<SnapshotReport, Refusal>;
    /// Name of the hypervisor that runs the guest, in lower case.
    fn accelerator(&self) -> String;
    /// Hands the guest over to the hypervisor of this name, while it is paused.
    ///
    /// # Errors
    /// If the machine has no such hypervisor, or cannot be handed over, or not now. It goes on
    /// where it was.
    fn switch_accelerator(&self, name: &str) -> Result<SwitchReport, Refusal>;
}

/// A hand-over of a guest between hypervisors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchReport {
    /// Time for which the guest was paused; zero if it was there already.
    pub paused: Duration,
}

/// Size and duration of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Size of RAM in bytes.
    pub memory: u64,
    /// Bytes of it that are not in pages of zeros.
    pub data: u64,
    /// Time for which the guest was paused.
    pub paused: Duration,
}

/// State of a balloon. All sizes are in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BalloonReport {
    /// Memory that the guest is asked for.
    pub target: u64,
    /// Memory that the guest says it has given, in all and now.
    pub actual: u64,
    /// Memory that it has given so far.
    pub given: u64,
    /// Memory of that which is no RAM, or which the host has not taken.
    pub refused: u64,
    /// Memory that it has taken back so far.
    pub taken_back: u64,
    /// Statistics of the guest's memory with their names; none if its driver does not report them.
    pub statistics: Vec<(&'static str, u64)>,
}

/// A machine for a debugger.
pub trait DebugTarget: Machine {
    /// Returns `true` if the machine was made for debugging: its vCPUs then report stops.
    fn is_debuggable(&self) -> bool;
    /// Number of addresses at which the processor itself can stop.
    fn debug_registers(&self) -> usize;
    /// Prepares for single steps (`true`), or for none any more: a machine with two hypervisors
    /// then executes its guest in software, where a step is cheap, or where it was before. All
    /// vCPUs are held. Returns `true` if steps are cheap now.
    fn prepare_steps(&self, stepped: bool) -> bool;
    /// Distance in bytes from the kernel's link address up to its load address.
    fn kernel_offset(&self) -> u64;
    /// Takes the oldest stop event. Its vCPU has a hold of its own, which the caller releases.
    fn take_event(&self) -> Option<DebugEvent>;
    /// Reports that a debugger is attached; crashes then become events.
    fn set_attached(&self, attached: bool);
    /// Exit code of the guest, if it has ended itself.
    fn exit_code(&self) -> Option<i32>;
    /// Two descriptors: one is readable while there are events, the other when the machine is
    /// ending.
    fn event_fds(&self) -> [BorrowedFd<'_>; 2];
}

/// Counts of the host's processor while it executed guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessorCounts {
    /// Completed instructions.
    pub instructions: u64,
    /// Cycles.
    pub cycles: u64,
}

/// A request that a machine cannot meet. The machine is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The vCPU, line, card or memory does not exist.
    #[error("{0}")]
    NotThere(String),
    /// An argument is invalid.
    #[error("{0}")]
    Invalid(String),
    /// The machine or its host cannot do it now.
    #[error("{0}")]
    Failed(String),
}
