//! Builds a machine.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nerite_arch::cpuid;
use nerite_arch::hermit::BootState;
use nerite_bus::Bus;
use nerite_devices::{Console, Input};
use nerite_kvm::{KvmVcpu, Options, System, VcpuSetup, Vm};
use nerite_loader::{GuestImage, Image, Interface, Limits};
use nerite_memory::{Backing, GuestRam};
use nerite_pci::Bridge;
use nerite_sandbox::Confinement;
use nerite_vcpu::{PostedWrites, Tracer};
use rustix::event::{EventfdFlags, eventfd};

use crate::budget::LogBudget;
use crate::config::{Config, CpuConfig, Irqchip, MsrPolicy, Observe};
use crate::counting::Counters;
use crate::dispatch::Platform;
use crate::early::EarlyVm;
use crate::guest::{Guest, Hermit};
use crate::hypercalls::{CommandLine, Hypercalls};
use crate::msr::Msrs;
use crate::network::Network;
use crate::opened::Rest;
use crate::pc::Keyboard;
use crate::plan::Plan;
use crate::rate::Rate;
use crate::running::Where;
use crate::{Error, Opened, Running, Timeline, boot, files, pc, posted, running};

/// A machine with its guest in memory and its vCPUs at the first instruction.
#[derive(Debug)]
pub struct Machine {
    pub(crate) system: Arc<System>,
    pub(crate) confinement: Option<Confinement>,
    pub(crate) guest: Guest,
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) vcpus: Vec<KvmVcpu>,
    /// Kept open because closing it takes a system call and frees nothing: each vCPU keeps it alive.
    pub(crate) vm: Vm,
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
        if let Ok(system) = &rest.system {
            rest.vm = EarlyVm::begin(system, image.size());
        }
        let image = image.read_guest(rest.config.boot.protocol, &Limits::default())?;
        rest.timeline.done("read and check the image");
        match image {
            GuestImage::Hermit(image) => Self::build_hermit(*image, rest),
            other => pc::build(&other, rest),
        }
    }

    fn build_hermit(image: Image, rest: Rest) -> Result<Self, Error> {
        let Rest { config, system, vm, mounts, output, tracer, core, counters, links, confinement, .. } =
            rest;
        let mut timeline = rest.timeline;
        let config = &config;
        let mut plan = Plan::new(config, &image)?;
        let stop_event =
            Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(Error::host("creating an eventfd"))?);
        let files = files::take(mounts, config, &image, &plan.env)?.interrupted_by(stop_event.clone());
        plan.mounts = files::mount_points(&files);
        let kernel = image.kernel();

        let system = system?;
        // Every KVM allows one.
        if plan.cpus > 1 {
            let allowed = system.max_vcpus();
            if usize::try_from(plan.cpus).is_ok_and(|cpus| cpus > allowed) {
                return Err(nerite_kvm::Error::TooManyVcpus { asked: plan.cpus, allowed }.into());
            }
        }
        let host_cpuid = system.supported_cpuid()?;

        timeline.done("plan");
        let random = if config.memory.aslr { random() } else { 0 };
        let layout = boot::lay_out(kernel, &plan, config.memory.aslr, random, &host_cpuid)?;
        log::debug!("{layout:x?}");
        let backing =
            Backing { thp: config.memory.thp, ksm: config.memory.ksm, hugepages: config.memory.hugepages };
        let regions = boot::regions(&layout, kernel.version(), backing.hugepages);
        let ram = GuestRam::new(&regions, &backing)?;
        if let Some(small) = boot::small_head(kernel, &layout, &backing) {
            ram.keep_small(small);
        }
        let ram = Arc::new(ram);
        timeline.done("map guest memory");
        let loaded = boot::load(kernel, &layout, &ram)?;
        timeline.done("load the kernel");

        let options = options(&config.cpus, config.cpus.pit);
        let irqchip = config.cpus.irqchip;
        if irqchip == Irqchip::User && (config.cpus.pit || !config.network.is_empty()) {
            return Err(Error::UserIrqchip);
        }
        let vm = vm.finish(&system)?.complete(ram.clone(), &options)?;
        let network = Network::new(Bridge::new(), links, &Arc::new(vm.interrupts()), &ram, plan.cpus)?;
        timeline.done("create the VM");
        let addresses = boot::addresses(&layout, &loaded);
        let tsc_deadline = irqchip == Irqchip::Kernel && system.has_tsc_deadline_timer();
        let vcpus = (0..plan.cpus)
            .map(|index| {
                let guest = cpuid::Guest { vcpu_index: index, vcpu_count: plan.cpus, tsc_deadline };
                let BootState { regs, special: special_regs, msrs } = BootState::new(index, &addresses);
                let cpuid = cpuid::for_guest(&host_cpuid, &guest);
                vm.create_vcpu(index, &VcpuSetup { regs, special_regs, msrs, cpuid })
            })
            .collect::<Result<Vec<_>, _>>()?;
        timeline.done("create the vCPUs");
        let tsc_khz = vcpus.first().and_then(Vm::tsc_khz);
        boot::describe(kernel, &plan, &layout, &loaded, &ram, tsc_khz, !network.bridge().is_empty())?;

        let path = config.image.to_string_lossy();
        let console = Arc::new(Console::new(output.sink()?));
        let stopping = Arc::new(AtomicBool::new(false));
        let calls = Hypercalls {
            ram: ram.clone(),
            console: console.clone(),
            files,
            input: Input::stdin(),
            command_line: command_line(&image, &path, &plan)?,
            stop_event: stop_event.clone(),
            stopping: stopping.clone(),
            rate: config.output_limits.bytes_per_second.map(Rate::new),
            budget: LogBudget::new(config.output_limits.log_lines),
        };
        let posted = post_writes(&vm, kernel.interface());
        let platform = Arc::new(platform(calls, posted, network.bridge())?);
        let affinity = config.cpus.affinity.clone();
        let observe = config.observe.clone();
        let msrs = Arc::new(Msrs::new(config.cpus.msr, config.output_limits.log_lines));
        let guest = Guest::Hermit(Box::new(Hermit { image, loaded, platform }));
        timeline.done("describe the machine");
        Ok(Self {
            system,
            confinement,
            guest,
            ram,
            vcpus,
            vm,
            affinity,
            console,
            stop_event,
            stopping,
            observe,
            tracer,
            core,
            counters,
            msrs,
            irqchip,
            network,
            timeline,
        })
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
        running::start(self, Where::Threads)
    }

    /// As [`Machine::start`], but without any thread if there need not be one: then the only vCPU runs on the calling thread while
    /// it [waits](Running::wait), and gives up there for good what a vCPU's thread does not need.
    ///
    /// That is so for a Hermit guest with one vCPU, hypercall interface v2, no network card, debugger or limit that is to end without
    /// help. Nobody then watches for a descriptor to become readable: what is to end the machine needs
    /// [`Running::interrupter`], which is `None` where there are threads after all.
    ///
    /// # Errors
    /// As [`Machine::start`].
    pub fn start_here(self) -> Result<Running, Error> {
        running::start(self, Where::Here)
    }
}

/// What KVM is told of the processors.
pub(crate) fn options(cpus: &CpuConfig, pit: bool) -> Options {
    let irqchip = match cpus.irqchip {
        Irqchip::Kernel => nerite_kvm::Irqchip::Kernel,
        Irqchip::User => nerite_kvm::Irqchip::User,
    };
    let msr_exits = cpus.msr != MsrPolicy::Fault;
    // All vCPUs of a Hermit guest start in 64-bit mode.
    Options { irqchip, pit, power_management: cpus.power_management, real_mode: false, msr_exits }
}

/// Only interface v1 hands strings over by hypercall, and only it limits their number.
fn command_line(image: &Image, path: &str, plan: &Plan) -> Result<CommandLine, Error> {
    match image.kernel().interface() {
        Interface::V1 => {
            let terminates_environment = !boot::is_before_0_10(image.kernel().version());
            CommandLine::new(path, &plan.app_args, &plan.env, terminates_environment)
        }
        Interface::V2 => Ok(CommandLine::default()),
    }
}

/// Has KVM collect writes that need no answer. Where it cannot, each is an exit.
fn post_writes(vm: &Vm, interface: Interface) -> Option<Arc<dyn PostedWrites>> {
    for &(first, size) in posted::ports(interface) {
        if let Err(error) = vm.post_port_writes(first, size) {
            log::debug!("writes to port {first:#x} are not collected: {error}");
        }
    }
    vm.posted_writes()
}

/// The machine's devices.
pub(crate) fn platform(
    calls: Hypercalls,
    posted: Option<Arc<dyn PostedWrites>>,
    pci: &Bridge,
) -> Result<Platform, Error> {
    let mut ports = Bus::new("port");
    let config = u64::from(nerite_pci::FIRST_PORT)..=u64::from(nerite_pci::LAST_PORT);
    ports.insert("PCI host", config, Arc::new(pci.ports()))?;
    let mut mmio = Bus::new("MMIO");
    if !pci.is_empty() {
        mmio.insert("PCI devices", nerite_pci::WINDOW, Arc::new(pci.window()))?;
    }
    Ok(Platform { ports, mmio, calls, posted })
}

/// A random number. The standard library has its hash maps' keys from the kernel, and the device tree has such a map: what is
/// made from these keys needs no further call.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
