//! What a session needs of a machine: a running one has it, and so has one that is made up, without
//! threads or a hypervisor.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use nerite_machine::debug::{DebugEvent, DebugEvents};
use nerite_machine::{Handle, Held, RunState};
use nerite_memory::GuestRam;
use nerite_vcpu::{Job, Statistics};

/// How long a vCPU may take to be held or to answer before it counts as waiting for the host.
const PATIENCE: Duration = Duration::from_millis(500);

/// vCPUs are named by their index, below [`Machine::count`]; nothing happens to others.
pub(crate) trait Machine: fmt::Debug + Send {
    /// How many vCPUs there are.
    fn count(&self) -> usize;
    /// Its memory.
    fn ram(&self) -> &GuestRam;
    /// Where each vCPU is.
    fn states(&self) -> Vec<RunState>;
    /// What was measured of each vCPU that can be asked.
    fn statistics(&self) -> Vec<Option<Statistics>>;
    /// At how many addresses the processor itself can stop.
    fn debug_registers(&self) -> usize;
    /// How much higher the kernel lies than it was linked for.
    fn kernel_offset(&self) -> u64;

    /// Asks for a vCPU to be held, once more.
    fn hold(&self, vcpu: usize);
    /// Waits until it is.
    fn wait_held(&self, vcpu: usize) -> Held;
    /// Takes back one hold.
    fn release(&self, vcpu: usize);
    /// Has something done by a vCPU, before it goes on.
    fn post(&self, vcpu: usize, job: Job);
    /// Has something done by a vCPU, and waits for that.
    ///
    /// # Errors
    /// If it is not done; it may still be, later.
    fn ask(&self, vcpu: usize, job: Job) -> Result<(), String>;

    /// What has happened that was not told yet.
    fn take_event(&self) -> Option<DebugEvent>;
    /// Says whether there is a debugger.
    fn set_attached(&self, attached: bool);
    /// Ends the machine.
    fn stop(&self);
    /// Whether it is ending.
    fn is_ending(&self) -> bool;
    /// What the guest ended itself with.
    fn exit_code(&self) -> Option<i32>;
    /// Readable when something has happened, and when it is ending.
    fn fds(&self) -> [BorrowedFd<'_>; 2];
}

/// A machine that runs.
#[derive(Debug)]
pub(crate) struct Real {
    pub(crate) handle: Handle,
    pub(crate) events: Arc<DebugEvents>,
}

impl Machine for Real {
    fn count(&self) -> usize {
        self.handle.vcpu_count()
    }

    fn ram(&self) -> &GuestRam {
        self.handle.ram()
    }

    fn states(&self) -> Vec<RunState> {
        self.handle.states()
    }

    fn statistics(&self) -> Vec<Option<Statistics>> {
        self.handle.statistics()
    }

    fn debug_registers(&self) -> usize {
        if self.handle.debug_caps().hardware { nerite_vcpu::DEBUG_REGISTERS } else { 0 }
    }

    fn kernel_offset(&self) -> u64 {
        self.handle.kernel_offset()
    }

    fn hold(&self, vcpu: usize) {
        if let Ok(control) = self.handle.control(vcpu) {
            control.hold();
        }
    }

    fn wait_held(&self, vcpu: usize) -> Held {
        self.handle.control(vcpu).map_or(Held::Stopped, |control| control.wait_held(PATIENCE))
    }

    fn release(&self, vcpu: usize) {
        if let Ok(control) = self.handle.control(vcpu) {
            control.release();
        }
    }

    fn post(&self, vcpu: usize, job: Job) {
        if let Ok(control) = self.handle.control(vcpu) {
            control.post(job);
        }
    }

    fn ask(&self, vcpu: usize, job: Job) -> Result<(), String> {
        self.handle.ask(vcpu, job).map_err(|error| error.to_string())
    }

    fn take_event(&self) -> Option<DebugEvent> {
        self.events.take()
    }

    fn set_attached(&self, attached: bool) {
        self.events.set_attached(attached);
    }

    fn stop(&self) {
        self.handle.stop();
    }

    fn is_ending(&self) -> bool {
        self.handle.is_ending()
    }

    fn exit_code(&self) -> Option<i32> {
        self.handle.exit_code()
    }

    fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.events.fd(), self.handle.end_event()]
    }
}
