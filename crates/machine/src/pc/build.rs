//! Builds a PC around a kernel.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nerite_arch::cpuid;
use nerite_arch::pc::entry::common_msrs;
use nerite_devices::Console;
use nerite_devices::pc::DebugExit;
use nerite_hypervisor::{VcpuStart, VmOptions};
use nerite_loader::{GuestImage, ImageSource, Limits, Protocol};
use nerite_memory::GuestRam;
use nerite_pci::Event;

use super::devices::{Devices, Place};
use super::load::{self, InitFile};
use super::plan::PcPlan;
use super::platform::{Parts, PcPlatform, ports};
use super::{Keyboard, Pc};
use crate::config::Irqchip;
use crate::guest::Guest;
use crate::machine::{backing, check_vcpus, options, stop_event};
use crate::msr::Msrs;
use crate::network::Network;
use crate::opened::Rest;
use crate::rate::Rate;
use crate::{Error, Machine};

/// Builds the machine for an image that is not Hermit's.
pub(crate) fn build(image: &GuestImage, rest: Rest) -> Result<Machine, Error> {
    let Rest { config, hypervisor, output, initrd, disks, tracer, core, links, confinement, .. } = rest;
    let counters = rest.counters;
    let mut timeline = rest.timeline;
    if config.cpus.irqchip == Irqchip::User {
        return Err(Error::UserIrqchip);
    }
    let plan = PcPlan::new(&config, image)?;
    let files = initrd.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let stop_event = stop_event()?;

    let hypervisor = hypervisor?;
    check_vcpus(&*hypervisor, plan.cpus)?;
    let ram = Arc::new(GuestRam::new(&load::regions(plan.memory), &backing(&config.memory))?);
    timeline.done("map guest memory");
    let loaded = load::load(image, &files, &plan, &ram)?;

    timeline.done("load the kernel");
    let options = VmOptions { real_mode: true, ..options(&config.cpus, true) };
    let vm = hypervisor.create_vm(ram.clone(), &options)?;
    let interrupts = vm.interrupt_controller().ok_or(Error::UserIrqchip)?;
    let network = Network::new(load::bridge(), links, &*vm, plan.cpus)?;
    let mut bridge = network.bridge().clone();
    let mut place = Place { bridge: &mut bridge, vm: &*vm, interrupts: &interrupts, first: network.len() };
    let devices = Devices::new(&config.devices, disks, &mut place)?;
    timeline.done("create the VM");
    let host_cpuid = hypervisor.supported_cpuid()?;
    let tsc_deadline = hypervisor.capabilities().tsc_deadline;
    let vcpus = (0..plan.cpus)
        .map(|index| {
            let guest = cpuid::Guest { vcpu_index: index, vcpu_count: plan.cpus, tsc_deadline };
            let cpuid = cpuid::for_guest(&host_cpuid, &guest);
            let msrs = common_msrs();
            let start = match index {
                0 => VcpuStart::At(&loaded.boot),
                _ => VcpuStart::WaitForSipi(&msrs),
            };
            vm.create_vcpu(index, start, &cpuid)
        })
        .collect::<Result<Vec<_>, _>>()?;

    timeline.done("create the vCPUs");
    let console = Arc::new(Console::new(output.sink()?));
    let stopping = Arc::new(AtomicBool::new(false));
    let serial_interrupt = Event::new().map_err(Error::host("creating an eventfd"))?;
    interrupts.connect_edge(ports::SERIAL_IRQ, &serial_interrupt)?;
    let parts = Parts {
        console: console.clone(),
        serial_interrupt,
        rate: config.output_limits.bytes_per_second.map(Rate::new),
        stop_event: stop_event.clone(),
        stopping: stopping.clone(),
        debug_exit: config.boot.debug_exit.or_else(|| default_debug_exit(image)),
        interrupts: Box::new(move |line, level| {
            if let Err(error) = interrupts.set_line(line, level) {
                log::warn!("interrupt line {line} of the test device: {error}");
            }
        }),
    };
    let platform = Arc::new(PcPlatform::new(&plan, parts, &bridge)?);
    let input = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3);
    let keyboard = input.ok().map(Keyboard::new);
    let guest = Guest::Pc(Pc { platform, kernel: loaded.kernel, keyboard, devices });
    timeline.done("describe the machine");
    let msrs = Arc::new(Msrs::new(config.cpus.msr, config.output_limits.log_lines));
    let (affinity, observe) = (config.cpus.affinity, config.observe);
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
        irqchip: Irqchip::Kernel,
        network,
        timeline,
    })
}

/// Reads a file for the guest.
fn read(source: ImageSource) -> Result<InitFile, Error> {
    let name = source.path().to_string_lossy().into_owned();
    Ok(InitFile { name, bytes: source.read_bytes(&Limits::default())? })
}

/// Test kernels that are made for multiboot expect to be able to end themselves.
fn default_debug_exit(image: &GuestImage) -> Option<u16> {
    (image.protocol() == Protocol::Multiboot).then_some(DebugExit::DEFAULT_PORT)
}
