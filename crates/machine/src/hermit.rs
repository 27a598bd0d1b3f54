//! Builds a machine around a Hermit kernel.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nerite_arch::{BootState, cpuid};
use nerite_bus::Bus;
use nerite_devices::{Console, Input};
use nerite_hypervisor::{VcpuStart, Vm};
use nerite_loader::{Image, Interface};
use nerite_memory::GuestRam;
use nerite_pci::Bridge;
use nerite_vcpu::CoalescedWrites;

use crate::budget::LogBudget;
use crate::config::Irqchip;
use crate::dispatch::Platform;
use crate::guest::{Guest, Hermit};
use crate::hypercalls::{CommandLine, Hypercalls};
use crate::machine::{backing, check_vcpus, options, stop_event};
use crate::msr::Msrs;
use crate::network::Network;
use crate::opened::Rest;
use crate::plan::Plan;
use crate::rate::Rate;
use crate::{Error, Machine, boot, files, posted};

/// Builds the machine for a Hermit image.
pub(crate) fn build(image: Image, rest: Rest) -> Result<Machine, Error> {
    let Rest { config, hypervisor, mounts, output, tracer, core, counters, links, confinement, .. } = rest;
    let mut timeline = rest.timeline;
    let config = &config;
    let mut plan = Plan::new(config, &image)?;
    let stop_event = stop_event()?;
    let files = files::take(mounts, config, &image, &plan.env)?.interrupted_by(stop_event.clone());
    plan.mounts = files::mount_points(&files);
    let kernel = image.kernel();

    let hypervisor = hypervisor?;
    check_vcpus(&*hypervisor, plan.cpus)?;
    let host_cpuid = hypervisor.supported_cpuid()?;

    timeline.done("plan");
    let random = if config.memory.aslr { random() } else { 0 };
    let layout = boot::lay_out(kernel, &plan, config.memory.aslr, random, &host_cpuid)?;
    log::debug!("{layout:x?}");
    let backing = backing(&config.memory);
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
    let vm = hypervisor.create_vm(ram.clone(), &options)?;
    let network = Network::new(Bridge::new(), links, &*vm, plan.cpus)?;
    timeline.done("create the VM");
    let addresses = boot::addresses(&layout, &loaded);
    let tsc_deadline = irqchip == Irqchip::Kernel && hypervisor.capabilities().tsc_deadline;
    let vcpus = (0..plan.cpus)
        .map(|index| {
            let guest = cpuid::Guest { vcpu_index: index, vcpu_count: plan.cpus, tsc_deadline };
            let state = BootState::hermit(index, &addresses);
            vm.create_vcpu(index, VcpuStart::At(&state), &cpuid::for_guest(&host_cpuid, &guest))
        })
        .collect::<Result<Vec<_>, _>>()?;
    timeline.done("create the vCPUs");
    let tsc_khz = vcpus.first().and_then(|vcpu| vcpu.tsc_khz());
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
    let coalesced = coalesce_writes(&*vm, kernel.interface());
    let platform = Arc::new(platform(calls, coalesced, network.bridge())?);
    let affinity = config.cpus.affinity.clone();
    let observe = config.observe.clone();
    let msrs = Arc::new(Msrs::new(config.cpus.msr, config.output_limits.log_lines));
    let guest = Guest::Hermit(Box::new(Hermit { image, loaded, platform }));
    timeline.done("describe the machine");
    Ok(Machine {
        hypervisor,
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

/// Coalesces writes that need no reply. Where the hypervisor cannot, each is an exit.
fn coalesce_writes(vm: &dyn Vm, interface: Interface) -> Option<Arc<dyn CoalescedWrites>> {
    for &(first, size) in posted::ports(interface) {
        if let Err(error) = vm.coalesce_port_writes(first, size) {
            log::debug!("writes to port {first:#x} are not coalesced: {error}");
        }
    }
    vm.coalesced_writes()
}

/// The machine's devices.
pub(crate) fn platform(
    calls: Hypercalls,
    coalesced: Option<Arc<dyn CoalescedWrites>>,
    pci: &Bridge,
) -> Result<Platform, Error> {
    let mut ports = Bus::new("port");
    let config = u64::from(nerite_pci::FIRST_PORT)..=u64::from(nerite_pci::LAST_PORT);
    ports.insert("PCI host", config, Arc::new(pci.ports()))?;
    let mut mmio = Bus::new("MMIO");
    if !pci.is_empty() {
        mmio.insert("PCI devices", nerite_pci::WINDOW, Arc::new(pci.window()))?;
    }
    Ok(Platform { ports, mmio, calls, coalesced })
}

/// A random number. The standard library has its hash maps' keys from the kernel, and the device tree has such a map: what is
/// made from these keys needs no further call.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
