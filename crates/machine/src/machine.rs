//! Builds a machine.

use std::sync::Arc;

use nerite_arch::cpuid;
use nerite_devices::{Console, HostTime, TimeSource, VirtualTime};
use nerite_hostfs::Mounts;
use nerite_hypervisor::{Hypervisor, Vcpu, Vm, VmOptions};
use nerite_loader::{GuestImage, ImageSource, Limits};
use nerite_memory::{Backing, PageMap};
use nerite_pc::InitFile;
use nerite_platform::{Builder, Environment, Platform, Rate, StopToken};
use nerite_sandbox::Confinement;
use nerite_switch::Switch;
use nerite_vcpu::Tracer;

use crate::accelerator::Choice;
use crate::config::{
    Clock, Config, ConsoleKind, CpuConfig, Irqchip, MemoryConfig, MsrPolicy, Observe, OnUnemulated,
};
use crate::core_file::CoreFile;
use crate::counting::Counters;
use crate::devices::{self, Devices};
use crate::embedding::Hypercalls;
use crate::functions::FunctionCounters;
use crate::identity::RestoredIdentity;
use crate::input::Keyboard;
use crate::moment::Moment;
use crate::msr::Msrs;
use crate::network::{self, Network};
use crate::opened::HostResources;
use crate::saver::BootImage;
use crate::setup::Setup;
use crate::snapshot::planned::Planned;
use crate::snapshot::restore::{Origin, Saved};
use crate::wires::PciBuilder;
use crate::{Embedding, Error, Opened, Timeline, accelerator, applicable, identity, late_image};

/// A machine with its guest in memory and its vCPUs at the first instruction.
#[derive(Debug)]
pub struct Machine {
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    /// The choice between hypervisors, if the guest can be handed over.
    pub(crate) switch: Option<Arc<Switch>>,
    pub(crate) confinement: Option<Confinement>,
    pub(crate) platform: Arc<dyn Platform>,
    /// Hypercalls of the embedding program.
    pub(crate) hypercalls: Hypercalls,
    pub(crate) environment: Environment,
    pub(crate) vcpus: Vec<Box<dyn Vcpu>>,
    /// Kept open because closing it takes a system call and frees nothing: each vCPU keeps it
    /// alive.
    pub(crate) vm: Arc<dyn Vm>,
    pub(crate) affinity: Vec<usize>,
    pub(crate) keyboard: Option<Keyboard>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) setup: Setup,
    /// The image, if snapshots of the guest can be made.
    pub(crate) image: Option<BootImage>,
    /// A snapshot that is due at a moment.
    pub(crate) planned: Option<Planned>,
    /// The page tables, which make snapshots fast.
    pub(crate) page_map: Option<PageMap>,
    pub(crate) network: Network,
    pub(crate) observe: Observe,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) core: Option<CoreFile>,
    pub(crate) counters: Counters,
    pub(crate) functions: Option<Arc<FunctionCounters>>,
    /// A moment at which something is due.
    pub(crate) moment: Option<Moment>,
    pub(crate) msrs: Arc<Msrs>,
    pub(crate) irqchip: Irqchip,
    pub(crate) timeline: Timeline,
}

impl Opened {
    /// Reads the image and builds the machine.
    ///
    /// # Errors
    /// As [`Machine::new`].
    pub fn build(self) -> Result<Machine, Error> {
        Machine::build(self)
    }
}

impl Machine {
    /// Opens what `config` names, reads the image and builds the machine.
    ///
    /// To confine the process in between, take [`Opened`].
    ///
    /// # Errors
    /// Fails if the image is not one that can run, the configuration cannot be met, or the host
    /// fails; [`Error::kind`] tells which.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Opened::open(config)?.build()
    }

    /// As [`Machine::new`], with parts that the calling program brings.
    ///
    /// # Errors
    /// As [`Machine::new`], and if an own device has no room where it is to be.
    pub fn embed(config: &Config, embedding: Embedding) -> Result<Self, Error> {
        Opened::open_embedded(config, embedding)?.build()
    }

    pub(crate) fn build(opened: Opened) -> Result<Self, Error> {
        let Opened { origin, resources } = opened;
        let HostResources { mut config, hypervisor, mounts, output, tracer, core, .. } = resources;
        let HostResources { counters, links, initrd, disks, page_map, confinement, .. } = resources;
        let vsock = resources.vsock;
        let staging = resources.staging;
        let mut timeline = resources.timeline;
        let mut embedding = resources.embedding;
        timeline.done("confine the process");
        let (image, saved) = match origin {
            Origin::Image(image) => (image, None),
            Origin::Late(image) => (late_image::read(image, &mut config)?, None),
            Origin::Snapshot(snapshot) => {
                let verify = config.restore.as_ref().is_some_and(|restore| restore.verify);
                let (saved, image) = Saved::read(*snapshot, verify)?;
                let restored = RestoredIdentity::take(&mut config, &saved);
                saved.state.setup.apply(&mut config)?;
                (ImageSource::from_file(&config.image, image)?, Some((saved, restored)))
            }
        };
        let boot_image =
            config.observe.saves().then(|| image.file().try_clone().and_then(BootImage::new));
        let boot_image = boot_image.transpose().map_err(Error::host("keeping the image open"))?;
        let image = image.read_guest(config.boot.protocol, &Limits::default())?;
        let mut setup = Setup::of(&config, image.protocol());
        timeline.done("read and check the image");
        applicable::check(&config, image.protocol())?;
        let stop = StopToken::new().map_err(Error::host("creating an eventfd"))?;
        let mut builder = builder(image, &config, initrd, mounts, &stop)?;
        check_affinity(&config.cpus, builder.vcpus())?;

        let Choice { hypervisor, without_kvm, is_kvm, switch } = hypervisor?;
        check_vcpus(&*hypervisor, builder.vcpus())?;
        let host_cpuid = hypervisor.supported_cpuid()?;
        timeline.done("plan");
        let backing = backing(&config.memory);
        let ram = match &saved {
            Some((saved, _)) => saved.ram(&backing)?,
            None => builder.allocate_ram(&backing, &host_cpuid)?,
        };
        let ram = Arc::new(ram);
        timeline.done("map guest memory");
        if saved.is_none() {
            builder.load(&ram)?;
            timeline.done("load the kernel");
        }
        let vm: Arc<dyn Vm> =
            hypervisor.create_vm(ram.clone(), &options(&config.cpus, &*builder))?.into();
        let mut pci = PciBuilder::new(builder.bridge(), &*vm);
        let network = Network::new(links, &mut pci, builder.vcpus())?;
        let devices = Devices::new(&config.devices, disks, vsock, &mut embedding, &mut pci)?;
        for (line, event) in &embedding.interrupts {
            let chips = vm.interrupt_controller().ok_or(Error::UserIrqchip)?;
            chips.connect_edge(*line, event)?;
        }
        let bridge = pci.into_bridge();
        timeline.done("create the VM");
        let irqchip = config.cpus.irqchip;
        let tsc_deadline = irqchip == Irqchip::Kernel && hypervisor.capabilities().tsc_deadline;
        let vcpu_count = builder.vcpus();
        let create = |vcpu_index| {
            let guest = cpuid::Guest { vcpu_index, vcpu_count, tsc_deadline };
            let leaves = cpuid::for_guest(&host_cpuid, &guest);
            let leaves = config.cpus.model.apply(leaves, hypervisor.name())?;
            Ok(builder.create_vcpu(&*vm, vcpu_index, &leaves)?)
        };
        let vcpus = match &saved {
            Some((saved, _)) => saved.restore_vcpus(&*vm, vcpu_count, &host_cpuid)?,
            None => (0..vcpu_count).map(create).collect::<Result<Vec<_>, Error>>()?,
        };
        let vcpus = match config.cpus.on_unemulated {
            OnUnemulated::Software if is_kvm => accelerator::assist(vcpus, &ram),
            _ => vcpus,
        };
        timeline.done("create the vCPUs");
        let environment = Environment {
            ram,
            console: Arc::new(Console::new(output.sink()?)),
            stop,
            time: time(&*vm),
            input: embedding.input.map(Arc::new),
            own: embedding.devices,
            rate: config.output_limits.bytes_per_second.map(|rate| Arc::new(Rate::new(rate))),
            log_lines: config.output_limits.log_lines,
        };
        let observe = &config.observe;
        let wants_symbols = observe.count || observe.switch_at.is_some();
        let symbols = wants_symbols.then(|| builder.symbols());
        let platform = match &saved {
            Some((saved, restored)) => {
                // After the chips, in which what a device raises would be lost otherwise.
                devices.restore(&saved.state.devices)?;
                network.restore(&restored.network)?;
                let platform =
                    builder.restore(&saved.state.platform, &*vm, &bridge, &environment)?;
                let identity = restored.at(environment.time.now(), config.cpus.clock)?;
                platform.renew(&identity)?;
                setup.renew(&identity);
                platform
            }
            None => builder.finish(&*vm, &vcpus, &bridge, &environment)?,
        };
        let offset = platform.kernel().offset;
        let moment = Moment::of(&config, symbols.as_ref(), offset)?;
        let functions = symbols
            .filter(|_| config.observe.count)
            .map(|symbols| Arc::new(FunctionCounters::new(symbols, offset)));
        if let Some(functions) = functions.as_ref().filter(|_| config.observe.count_from.is_some())
        {
            functions.wait(vcpus.len());
        }
        let planned = staging.zip(config.observe.snapshot.as_ref());
        let planned = planned
            .map(|(staging, it)| Planned::new(staging, it.moment, &environment.console))
            .transpose()
            .map_err(Error::host("creating an eventfd"))?;
        let keyboard = devices.console().or_else(|| platform.input());
        let keyboard = keyboard.and_then(|line| Keyboard::new(environment.input.as_deref(), line));
        // Last, so that a machine that cannot be built has one message.
        if let Some(reason) = without_kvm {
            log::warn!("the guest runs on a processor in software: {reason}");
        }
        timeline.done("describe the machine");
        let msrs = Arc::new(Msrs::new(config.cpus.msr, config.output_limits.log_lines));
        let (affinity, observe) = (config.cpus.affinity, config.observe);
        Ok(Self {
            hypervisor,
            switch,
            confinement,
            platform,
            hypercalls: embedding.hypercalls,
            environment,
            vcpus,
            vm,
            affinity,
            keyboard,
            devices: Arc::new(devices),
            setup,
            image: boot_image,
            planned,
            page_map,
            network,
            observe,
            tracer,
            core,
            counters,
            functions,
            moment,
            msrs,
            irqchip,
            timeline,
        })
    }

    /// Returns `true` if the guest has a line for input, and standard input is a terminal that
    /// should be in raw mode while it runs.
    pub fn wants_terminal(&self) -> bool {
        self.keyboard.as_ref().is_some_and(Keyboard::is_terminal)
    }
}

/// The platform of an image: the one place that names any.
fn builder(
    image: GuestImage,
    config: &Config,
    initrd: Vec<ImageSource>,
    mounts: Mounts,
    stop: &StopToken,
) -> Result<Box<dyn Builder>, Error> {
    Ok(match image {
        GuestImage::Hermit(image) => {
            let settings = nerite_hermit::Settings {
                image: config.image.clone(),
                memory: config.memory.size,
                aslr: config.memory.aslr && config.cpus.clock == Clock::Host,
                vcpus: config.cpus.count,
                pit: config.cpus.pit,
                kernel_args: config.guest.kernel_args.clone(),
                app_args: config.guest.app_args.clone(),
                env: config.guest.env.clone(),
                virtio_console: config.devices.console == ConsoleKind::Virtio,
                mounts: config.mounts.clone(),
                file_limits: config.file_limits,
                on_changed: config
                    .restore
                    .as_ref()
                    .map(|restore| restore.on_changed)
                    .unwrap_or_default(),
            };
            Box::new(nerite_hermit::Builder::new(*image, settings, mounts, stop)?)
        }
        other => {
            let cards = network::LINES.into_iter().take(config.network.len());
            let settings = nerite_pc::Settings {
                image: config.image.clone(),
                memory: config.memory.size,
                vcpus: config.cpus.count,
                command_line: config.boot.command_line.clone(),
                app_args: config.guest.app_args.clone(),
                virtio_console: config.devices.console == ConsoleKind::Virtio,
                debug_exit: config.boot.debug_exit,
                generation: identity::generation(config.cpus.clock)?.unwrap_or_default(),
                lines: cards.chain(devices::LINES).collect(),
            };
            let files = initrd.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
            Box::new(nerite_pc::Builder::new(other, files, &settings)?)
        }
    })
}

/// Time of the guest's devices.
fn time(vm: &dyn Vm) -> Arc<dyn TimeSource> {
    match vm.virtual_clock() {
        Some(clock) => Arc::new(VirtualTime::new(move || clock.elapsed())),
        None => Arc::new(HostTime::new()),
    }
}

/// Reads a file for the guest.
fn read(source: ImageSource) -> Result<InitFile, Error> {
    let name = source.path().to_string_lossy().into_owned();
    Ok(InitFile { name, bytes: source.read_bytes(&Limits::default())? })
}

/// Checks that there is a host CPU for each vCPU, or none for any.
fn check_affinity(cpus: &CpuConfig, vcpus: u32) -> Result<(), Error> {
    let given = cpus.affinity.len();
    if given != 0 && u32::try_from(given) != Ok(vcpus) {
        return Err(Error::Affinity { given, cpus: vcpus });
    }
    Ok(())
}

/// Options of the VM.
fn options(cpus: &CpuConfig, builder: &dyn Builder) -> VmOptions {
    VmOptions {
        vcpus: builder.vcpus(),
        irqchip: match cpus.irqchip {
            Irqchip::Kernel => nerite_hypervisor::Irqchip::Hypervisor,
            Irqchip::User => nerite_hypervisor::Irqchip::User,
        },
        kick_timers: true,
        pit: builder.needs_pit(),
        msr_exits: cpus.msr != MsrPolicy::Fault,
        power_management: cpus.power_management,
        real_mode: builder.uses_real_mode(),
    }
}

/// Backing of guest memory.
fn backing(memory: &MemoryConfig) -> Backing {
    Backing { thp: memory.thp, ksm: memory.ksm, hugepages: memory.hugepages }
}

/// Checks that the hypervisor allows so many vCPUs. Every one allows one.
fn check_vcpus(hypervisor: &dyn Hypervisor, cpus: u32) -> Result<(), Error> {
    if cpus > 1 {
        let allowed = hypervisor.max_vcpus();
        if usize::try_from(cpus).is_ok_and(|cpus| cpus > allowed) {
            let hypervisor = hypervisor.name();
            return Err(nerite_hypervisor::Error::TooManyVcpus {
                asked: cpus,
                allowed,
                hypervisor,
            }
            .into());
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "machine_test.rs"]
mod tests;
