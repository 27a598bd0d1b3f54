//! A hypervisor and its VMs.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nerite_arch::{BootState, CpuidEntry, Msr};
use nerite_event::Event;
use nerite_memory::GuestRam;

use crate::{
    CoalescedWrites, CounterKind, DebugCaps, Error, GuestCounter, InterruptController, Vcpu,
    VmState,
};

/// Properties of a hypervisor on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// `true` if the hypervisor's local APICs have the TSC-deadline timer (Intel SDM vol. 3,
    /// 12.5.4.1).
    pub tsc_deadline: bool,
    /// `true` if the host's kernel runs the guest: the process needs KVM's system calls, and
    /// signals that the kernel itself sends to the descriptor of an event (vhost) arrive.
    pub in_kernel: bool,
}

/// Location of a VM's interrupt controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Irqchip {
    /// In the hypervisor: PIC, I/O APIC and local APICs.
    #[default]
    Hypervisor,
    /// In the VMM, which injects interrupts ([`Vcpu::direct_interrupts`]), waits where the guest
    /// halts, and handles accesses of the x2APIC's registers ([`crate::Exit::MsrRead`]) and of the
    /// xAPIC's (as MMIO).
    User,
}

/// Options of a VM. The default has one vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmOptions {
    /// Number of vCPUs: those with indices below it can be created.
    pub vcpus: u32,
    /// Location of the interrupt controllers.
    pub irqchip: Irqchip,
    /// `true` if vCPUs get timers ([`Vcpu::kick_timer`]). A hypervisor that needs a thread for them
    /// starts it with the VM: the threads of a confined process start none.
    pub kick_timers: bool,
    /// `true` adds an i8254 interval timer; only with [`Irqchip::Hypervisor`].
    pub pit: bool,
    /// `true` makes accesses of unknown model-specific registers exits instead of #GP.
    pub msr_exits: bool,
    /// `true` lets the guest execute HLT, MWAIT and PAUSE without VM exits.
    pub power_management: bool,
    /// `true` if the guest uses real mode, as kernels do that start on a PC or start application
    /// processors. Old Intel processors need some memory for that.
    pub real_mode: bool,
}

impl Default for VmOptions {
    fn default() -> Self {
        Self {
            vcpus: 1,
            irqchip: Irqchip::default(),
            kick_timers: true,
            pit: false,
            msr_exits: false,
            power_management: false,
            real_mode: false,
        }
    }
}

/// State in which a vCPU begins.
#[derive(Debug, Clone, Copy)]
pub enum VcpuStart<'a> {
    /// At the boot state's entry point.
    At(&'a BootState),
    /// As an application processor after a reset: it waits for INIT and SIPI (Intel SDM vol. 3,
    /// 10.4.4), which set its registers. These MSRs are set before.
    WaitForSipi(&'a [Msr]),
}

/// A hypervisor: KVM, a software CPU, or a script in a test.
pub trait Hypervisor: fmt::Debug + Send + Sync {
    /// Name for logs and reports.
    fn name(&self) -> &'static str;

    /// Properties on this host.
    fn capabilities(&self) -> Capabilities;

    /// Maximum number of vCPUs of a VM, which may take a system call.
    fn max_vcpus(&self) -> usize;

    /// CPUID leaves that guests can have.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, Error>;

    /// Indices of the MSRs that are part of a vCPU's state, to be saved and restored.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    fn supported_msrs(&self) -> Result<Vec<u32>, Error>;

    /// Creates a VM with `ram` in memory slots.
    ///
    /// # Errors
    /// Fails if the hypervisor refuses the RAM or an option.
    fn create_vm(&self, ram: Arc<GuestRam>, options: &VmOptions) -> Result<Box<dyn Vm>, Error>;

    /// Finds out the debugging abilities. May run a short guest.
    fn debug_caps(&self) -> DebugCaps {
        DebugCaps::default()
    }

    /// Opens a counter of the processor. With `period`, a thread that has counted so much since
    /// the last time is signalled ([`Vcpu::kick_at_overflow`]).
    ///
    /// # Errors
    /// Fails if there is no such counter, or the process has no right to it.
    fn open_counter(
        &self,
        _kind: CounterKind,
        _period: Option<u64>,
    ) -> io::Result<Box<dyn GuestCounter>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns `true` if `counter` counts the instructions of guests, by running one of known
    /// length on the thread that opened the counter.
    fn counts_instructions(&self, _counter: &dyn GuestCounter) -> bool {
        false
    }

    /// Returns `true` if guests are to run on the host's processor and are interpreted here
    /// instead, so that some instructions are not known. May run a short guest.
    fn only_emulates(&self) -> bool {
        false
    }
}

/// A clock of a VM that is not the host's.
pub trait VirtualClock: fmt::Debug + Send + Sync {
    /// Time since the VM was created, as far as a vCPU has seen it: while a vCPU's exit is handled,
    /// the time of that exit, if there is one vCPU.
    fn elapsed(&self) -> Duration;
}

/// A VM: RAM, interrupt controllers, doorbells and vCPUs.
pub trait Vm: fmt::Debug + Send + Sync {
    /// RAM of this VM.
    fn ram(&self) -> &Arc<GuestRam>;

    /// Creates vCPU number `index` (its APIC id); `cpuid` is what CPUID returns.
    ///
    /// # Errors
    /// Fails if the hypervisor does, or refuses an MSR (which is named).
    fn create_vcpu(
        &self,
        index: u32,
        start: VcpuStart<'_>,
        cpuid: &[CpuidEntry],
    ) -> Result<Box<dyn Vcpu>, Error>;

    /// Interrupt controllers of this VM; `None` with [`Irqchip::User`].
    fn interrupt_controller(&self) -> Option<Arc<dyn InterruptController>>;

    /// Clock of this VM; `None` if that is the host's.
    fn virtual_clock(&self) -> Option<Arc<dyn VirtualClock>> {
        None
    }

    /// Doorbells of this VM.
    fn doorbells(&self) -> Arc<dyn Doorbells>;

    /// Coalesces writes to the `size` ports from `first` on: the guest continues after them, and
    /// they collect in [`Vm::coalesced_writes`]. An access of any width must lie within the
    /// range. Writes still are exits when no more can be collected.
    ///
    /// # Errors
    /// Fails if the hypervisor cannot collect port writes.
    fn coalesce_port_writes(&self, first: u16, size: u16) -> Result<(), Error>;

    /// Writes that are collected for all vCPUs; `None` before the first vCPU is created, or if
    /// the hypervisor collects none.
    fn coalesced_writes(&self) -> Option<Arc<dyn CoalescedWrites>>;

    /// State of the interrupt chips and timers that all vCPUs share. All vCPUs are paused.
    ///
    /// # Errors
    /// Fails if the hypervisor does, or it cannot save.
    fn save(&self) -> Result<VmState, Error> {
        Err(Error::Lacks { capability: "saving a VM's state" })
    }

    /// Sets the state of the shared chips, after all vCPUs are restored and before the first of
    /// them runs. All lines are low then: devices assert theirs again.
    ///
    /// # Errors
    /// Fails with [`Error::VmState`] if there can be no such state, and if the hypervisor fails.
    fn restore(&self, _state: &VmState) -> Result<(), Error> {
        Err(Error::Lacks { capability: "restoring a VM's state" })
    }
}

/// Doorbells: writes of the guest that signal an event without a VM exit.
pub trait Doorbells: fmt::Debug + Send + Sync {
    /// Makes a write of any width at the guest-physical `address`, where there is no RAM, signal
    /// `event` and do nothing else.
    ///
    /// # Errors
    /// Fails if the hypervisor refuses, as it does if there is one already.
    fn attach(&self, address: u64, event: &Event) -> Result<(), Error>;

    /// Removes the doorbell of `event` at `address`.
    ///
    /// # Errors
    /// Fails if there is none.
    fn detach(&self, address: u64, event: &Event) -> Result<(), Error>;
}
