//! Builds a machine.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nerite_devices::Console;
use nerite_hypervisor::{Hypervisor, Vcpu, Vm, VmOptions};
use nerite_loader::{GuestImage, Limits};
use nerite_memory::{Backing, GuestRam};
use nerite_sandbox::Confinement;
use nerite_vcpu::Tracer;
use rustix::event::{EventfdFlags, eventfd};

use crate::config::{Config, CpuConfig, Irqchip, MemoryConfig, MsrPolicy, Observe};
use crate::counting::Counters;
use crate::guest::Guest;
use crate::msr::Msrs;
use crate::network::Network;
use crate::pc::Keyboard;
use crate::{Error, Opened, Running, Timeline, hermit, pc, running};

/// A machine with its guest in memory and its vCPUs at the first instruction.
#[derive(Debug)]
pub struct Machine {
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) confinement: Option<Confinement>,
    pub(crate) guest: Guest,
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) vcpus: Vec<Box<dyn Vcpu>>,
    /// Kept open because closing it takes a system call and frees nothing: each vCPU keeps it alive.
    pub(crate) vm: Box<dyn Vm>,
    pub(crate) affinity: Vec<usize>,
    pub(crate) console: Arc<Console>,
    pub(crate) stop_event: Arc<OwnedFd>,
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) observe: Observe,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) core: Option<File>,
    pub(crate) counters: Counters,
    pub(crate) msrs: Arc<Msrs>,
    pub(crate) irqchip: Irqchip,
    pub(crate) network: Network,
    pub(crate) timeline: Timeline,
}

impl Machine {
    /// Opens what `config` names, reads the image and builds the machine.
    ///
    /// To confine the process in between, take [`Opened`].
    ///
    /// # Errors
    /// If the image is not one that can run, the configuration cannot be met, or the host fails; [`Error::kind`] says
    /// which.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Opened::open(config)?.build()
    }

    pub(crate) fn build(opened: Opened) -> Result<Self, Error> {
        let Opened { image, mut rest } = opened;
        rest.timeline.done("confine the process");
        let image = image.read_guest(rest.config.boot.protocol, &Limits::default())?;
        rest.timeline.done("read and check the image");
        match image {
            GuestImage::Hermit(image) => hermit::build(*image, rest),
            other => pc::build(&other, rest),
        }
    }

    /// Whether the guest has a serial port, and standard input is a terminal that should be in raw mode while it runs.
    pub fn wants_terminal(&self) -> bool {
        match &self.guest {
            Guest::Pc(pc) => pc.keyboard.as_ref().is_some_and(Keyboard::is_terminal),
            Guest::Hermit(_) => false,
        }
    }

    /// Starts a thread for each vCPU.
    ///
    /// # Errors
    /// If the host has no thread left, or a vCPU cannot be bound to its host CPU.
    pub fn start(self) -> Result<Running, Error> {
        running::start(self)
    }
}

/// Options of the VM that the configuration of the processors asks for.
pub(crate) fn options(cpus: &CpuConfig, pit: bool) -> VmOptions {
    let irqchip = match cpus.irqchip {
        Irqchip::Kernel => nerite_hypervisor::Irqchip::Hypervisor,
        Irqchip::User => nerite_hypervisor::Irqchip::User,
    };
    let msr_exits = cpus.msr != MsrPolicy::Fault;
    // All vCPUs of a Hermit guest start in 64-bit mode.
    VmOptions { irqchip, pit, power_management: cpus.power_management, real_mode: false, msr_exits }
}

/// How guest memory is to be backed.
pub(crate) fn backing(memory: &MemoryConfig) -> Backing {
    Backing { thp: memory.thp, ksm: memory.ksm, hugepages: memory.hugepages }
}

/// Checks that the hypervisor allows so many vCPUs. Every one allows one.
pub(crate) fn check_vcpus(hypervisor: &dyn Hypervisor, cpus: u32) -> Result<(), Error> {
    if cpus > 1 {
        let allowed = hypervisor.capabilities().max_vcpus;
        if usize::try_from(cpus).is_ok_and(|cpus| cpus > allowed) {
            let hypervisor = hypervisor.name();
            return Err(nerite_hypervisor::Error::TooManyVcpus { asked: cpus, allowed, hypervisor }.into());
        }
    }
    Ok(())
}

/// What is signalled to end the machine.
pub(crate) fn stop_event() -> Result<Arc<OwnedFd>, Error> {
    Ok(Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(Error::host("creating an eventfd"))?))
}
