//! Builds the platform of a Hermit guest.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nerite_arch::hermit::BootAddresses;
use nerite_arch::{BootState, CpuidEntry, Regs, SpecialRegs};
use nerite_bus::Bus;
use nerite_devices::Input;
use nerite_hostfs::{HostFs, Mounts, OnChanged};
use nerite_hypercall::{v1, v2};
use nerite_hypervisor::{CoalescedWrites, Vcpu, VcpuStart, Vm};
use nerite_inspect::{Frame, Unwinder};
use nerite_loader::{Image, Interface, LoadedKernel, Symbols};
use nerite_log_budget::Causes;
use nerite_memory::{Backing, GuestRam, Layout};
use nerite_pci::Bridge;
use nerite_platform::{
    Environment, ExitHandler, Identity, KernelPlace, LogBudget, OutputClock, Platform,
    PlatformState, StopToken,
};
use nerite_saved::SaveError;
use nerite_vcpu::Control;

use crate::boot::Clocks;
use crate::dispatch::{Dispatcher, Shared};
use crate::hypercalls::Hypercalls;
use crate::plan::Plan;
use crate::state::HermitState;
use crate::{Error, Settings, boot, coalesced, files, identity, lines};

/// A Hermit guest on the way into a machine.
#[derive(Debug)]
pub struct Builder {
    image: Image,
    settings: Settings,
    plan: Plan,
    files: HostFs,
    /// Addresses of all parts, once RAM is allocated.
    layout: Option<Layout>,
    loaded: Option<LoadedKernel>,
}

impl Builder {
    /// Makes the choices that the image and the settings leave. `mounts` are those of the settings,
    /// opened; file calls that wait end with `stop`.
    ///
    /// # Errors
    /// Fails if the image needs more than it is given, or the files cannot be set up.
    pub fn new(
        image: Image,
        settings: Settings,
        mounts: Mounts,
        stop: &StopToken,
    ) -> Result<Self, Error> {
        let mut plan = Plan::new(&settings, &image)?;
        let files = files::take(mounts, &settings, &image, &plan.env)?;
        let files = files.interrupted_by(stop.event().clone());
        plan.mounts = files::mount_points(&files);
        Ok(Self { image, settings, plan, files, layout: None, loaded: None })
    }

    /// The layout and the loaded kernel.
    fn loaded(&self) -> Result<(&Layout, &LoadedKernel), Error> {
        let missing =
            || Error::host("building a Hermit guest")(std::io::Error::other("nothing is loaded"));
        self.layout.as_ref().zip(self.loaded.as_ref()).ok_or_else(missing)
    }
}

impl nerite_platform::Builder for Builder {
    fn vcpus(&self) -> u32 {
        self.plan.cpus
    }

    /// All vCPUs start in 64-bit mode.
    fn uses_real_mode(&self) -> bool {
        false
    }

    fn needs_pit(&self) -> bool {
        self.settings.pit
    }

    fn allocate_ram(&mut self, backing: &Backing, cpuid: &[CpuidEntry]) -> Result<GuestRam, Error> {
        let kernel = self.image.kernel();
        let aslr = self.settings.aslr;
        let random = if aslr { random()? } else { 0 };
        let layout = boot::lay_out(kernel, &self.plan, aslr, random, cpuid)?;
        log::debug!("{layout:x?}");
        let regions = boot::regions(&layout, kernel.version(), backing.hugepages);
        let ram = GuestRam::new(&regions, backing)?;
        if let Some(small) = boot::small_head(kernel, &layout, backing) {
            ram.disable_thp_for_head(small);
        }
        self.layout = Some(layout);
        Ok(ram)
    }

    fn load(&mut self, ram: &GuestRam) -> Result<(), Error> {
        if let Some(layout) = &self.layout {
            self.loaded = Some(boot::load(self.image.kernel(), layout, ram)?);
        }
        Ok(())
    }

    fn symbols(&self) -> Symbols {
        self.image.kernel().symbols().clone()
    }

    fn bridge(&self) -> Bridge {
        Bridge::new()
    }

    fn create_vcpu(
        &self,
        vm: &dyn Vm,
        index: u32,
        cpuid: &[CpuidEntry],
    ) -> Result<Box<dyn Vcpu>, Error> {
        let (layout, loaded) = self.loaded()?;
        let addresses: BootAddresses = boot::addresses(layout, loaded);
        let state = BootState::hermit(index, &addresses);
        Ok(vm.create_vcpu(index, VcpuStart::At(&state), cpuid)?)
    }

    fn finish(
        self: Box<Self>,
        vm: &dyn Vm,
        vcpus: &[Box<dyn Vcpu>],
        bridge: &Bridge,
        environment: &Environment,
    ) -> Result<Arc<dyn Platform>, Error> {
        let (layout, loaded) = self.loaded()?;
        let kernel = self.image.kernel();
        let tsc_khz = vcpus.first().and_then(|vcpu| vcpu.tsc_khz());
        let clocks = Clocks { tsc_khz, boot_time: environment.time.now() };
        let has_pci = !bridge.is_empty();
        if has_pci && lines::are_routed_for(kernel.version()) {
            lines::route(vm, bridge)?;
        }
        boot::describe(kernel, &self.plan, layout, loaded, &environment.ram, clocks, has_pci)?;
        let loaded = *loaded;
        Ok(Arc::new(self.platform(loaded, vm, bridge, environment)?))
    }

    fn restore(
        self: Box<Self>,
        state: &PlatformState,
        vm: &dyn Vm,
        bridge: &Bridge,
        environment: &Environment,
    ) -> Result<Arc<dyn Platform>, Error> {
        let state = state.read::<HermitState>()?;
        let on_changed = self.settings.on_changed;
        let platform = self.platform(state.loaded()?, vm, bridge, environment)?;
        state.restore(&platform.shared, on_changed)?;
        Ok(Arc::new(platform))
    }
}

impl Builder {
    /// Makes the platform of a guest that is in memory.
    fn platform(
        self,
        loaded: LoadedKernel,
        vm: &dyn Vm,
        bridge: &Bridge,
        environment: &Environment,
    ) -> Result<Hermit, Error> {
        let path = self.settings.image.to_string_lossy();
        let command_line = Mutex::new(identity::command_line(&self.image, &path, &self.plan)?);
        let coalesced = coalesce_writes(vm, self.image.kernel().interface());
        let input = self.input(environment)?;
        let calls = Hypercalls {
            ram: environment.ram.clone(),
            console: environment.console.clone(),
            files: self.files,
            input,
            command_line,
            stop: environment.stop.clone(),
            rate: environment.rate.clone(),
            budget: LogBudget::new(environment.log_lines),
        };
        let mut shared = shared(calls, coalesced, bridge)?;
        let is_call =
            |port| v1::Call::from_port(port).is_some() || v2::Call::from_port(port).is_some();
        let Shared { ports, mmio, .. } = &mut shared;
        environment.own.insert_into(ports, mmio, is_call, &environment.ram)?;
        let (path, plan) = (path.into_owned(), Mutex::new(self.plan));
        Ok(Hermit { image: self.image, path, plan, loaded, shared: Arc::new(shared) })
    }

    /// Input of the hypercalls. If there is a virtio console, that has the guest's.
    fn input(&self, environment: &Environment) -> Result<Input, Error> {
        if self.settings.virtio_console {
            return Ok(Input::new(None));
        }
        let Some(source) = &environment.input else { return Ok(Input::stdin()) };
        let source = source.try_clone().map_err(Error::host("keeping the guest's input open"))?;
        Ok(Input::new(Some(source)))
    }
}

/// A Hermit guest's platform.
#[derive(Debug)]
struct Hermit {
    image: Image,
    /// Path of the image, the first argument.
    path: String,
    /// Arguments and all that the guest was started with, or has got since.
    plan: Mutex<Plan>,
    loaded: LoadedKernel,
    shared: Arc<Shared>,
}

impl Platform for Hermit {
    fn handler(&self, control: Arc<Control>, deadline: Option<Instant>) -> Box<dyn ExitHandler> {
        Box::new(Dispatcher::new(self.shared.clone(), control, deadline))
    }

    fn kernel(&self) -> KernelPlace {
        let LoadedKernel { start, end, entry, .. } = self.loaded;
        let offset = start.wrapping_sub(self.image.kernel().link_start());
        KernelPlace { range: start..end, entry: Some(entry), offset }
    }

    fn backtrace(&self, ram: &GuestRam, regs: &Regs, special: &SpecialRegs) -> Vec<Frame> {
        Unwinder { ram, kernel: self.image.kernel(), loaded: &self.loaded }.backtrace(regs, special)
    }

    fn output_clock(&self) -> Option<OutputClock> {
        coalesced::clock(self.image.kernel().interface())
    }

    fn collect_coalesced(&self, final_call: bool) -> bool {
        self.shared.collect_coalesced(final_call)
    }

    fn has_coalesced(&self) -> bool {
        self.shared.has_coalesced()
    }

    fn save(&self) -> Result<PlatformState, SaveError> {
        PlatformState::new(&HermitState::of(&self.loaded, &self.shared)?)
    }

    fn renew(&self, identity: &Identity) -> Result<(), Error> {
        let (loaded, ram) = (&self.loaded, &self.shared.calls.ram);
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        *plan = identity::renew(&self.image, &plan, loaded, ram, identity)?;
        let words = identity::command_line(&self.image, &self.path, &plan)?;
        self.shared.calls.set_words(words);
        Ok(())
    }

    fn reset(&self, state: &PlatformState) -> Result<(), Error> {
        Ok(state.read::<HermitState>()?.restore(&self.shared, OnChanged::Refuse)?)
    }
}

/// Coalesces writes that need no reply. Where the hypervisor cannot, each is an exit.
fn coalesce_writes(vm: &dyn Vm, interface: Interface) -> Option<Arc<dyn CoalescedWrites>> {
    for &(first, size) in coalesced::ports(interface) {
        if let Err(error) = vm.coalesce_port_writes(first, size) {
            log::debug!("writes to port {first:#x} are not coalesced: {}", Causes(&error));
        }
    }
    vm.coalesced_writes()
}

/// The machine's devices.
pub(crate) fn shared(
    calls: Hypercalls,
    coalesced: Option<Arc<dyn CoalescedWrites>>,
    pci: &Bridge,
) -> Result<Shared, Error> {
    let mut ports = Bus::new("port");
    let config = u64::from(nerite_pci::FIRST_PORT)..=u64::from(nerite_pci::LAST_PORT);
    let host = Arc::new(pci.ports());
    ports.insert("PCI host", config, host.clone())?;
    let mut mmio = Bus::new("MMIO");
    if !pci.is_empty() {
        mmio.insert("PCI devices", nerite_pci::WINDOW, Arc::new(pci.window()))?;
    }
    Ok(Shared { ports, mmio, pci: host, calls, coalesced })
}

/// A random number for the layout.
fn random() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    let flags = rustix::rand::GetRandomFlags::empty();
    rustix::rand::getrandom(&mut bytes, flags).map_err(Error::host("reading a random number"))?;
    Ok(u64::from_ne_bytes(bytes))
}
