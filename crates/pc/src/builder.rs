//! Builds a PC around a kernel.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nerite_arch::pc::entry::common_msrs;
use nerite_arch::{CpuidEntry, Regs, SpecialRegs};
use nerite_devices::pc::{DebugExit, Serial};
use nerite_hypervisor::{Vcpu, VcpuStart, Vm};
use nerite_inspect::Frame;
use nerite_loader::{GuestImage, Protocol, Symbols};
use nerite_log_budget::Causes;
use nerite_memory::{Backing, GuestRam};
use nerite_pci::{Bridge, Event};
use nerite_platform::{
    DeviceTimer, Environment, ExitHandler, Identity, InputLine, KernelPlace, Platform,
    PlatformState,
};
use nerite_saved::SaveError;
use nerite_vcpu::Control;

use crate::dispatch::PcDispatcher;
use crate::generation::Generation;
use crate::load::{self, InitFile, Loaded};
use crate::plan::PcPlan;
use crate::platform::{Devices, Lines, Parts, ports};
use crate::state::PcState;
use crate::{Error, Settings};

/// A kernel on the way into a PC.
#[derive(Debug)]
pub struct Builder {
    image: GuestImage,
    files: Vec<InitFile>,
    plan: PcPlan,
    debug_exit: Option<u16>,
    loaded: Option<Loaded>,
}

impl Builder {
    /// Makes the choices that the settings leave. `files` are initial file systems or modules.
    ///
    /// # Errors
    /// Fails if no machine can be as the settings say.
    pub fn new(
        image: GuestImage,
        files: Vec<InitFile>,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let plan = PcPlan::new(settings, &image)?;
        // Test kernels that are made for multiboot expect to be able to end themselves.
        let default = (image.protocol() == Protocol::Multiboot).then_some(DebugExit::DEFAULT_PORT);
        Ok(Self { image, files, plan, debug_exit: settings.debug_exit.or(default), loaded: None })
    }

    fn loaded(&self) -> Result<&Loaded, Error> {
        let missing = || Error::host("building a PC")(std::io::Error::other("nothing is loaded"));
        self.loaded.as_ref().ok_or_else(missing)
    }
}

impl nerite_platform::Builder for Builder {
    fn vcpus(&self) -> u32 {
        self.plan.cpus
    }

    fn uses_real_mode(&self) -> bool {
        true
    }

    fn needs_pit(&self) -> bool {
        true
    }

    fn allocate_ram(
        &mut self,
        backing: &Backing,
        _cpuid: &[CpuidEntry],
    ) -> Result<GuestRam, Error> {
        Ok(GuestRam::new(&load::regions(self.plan.memory), backing)?)
    }

    fn load(&mut self, ram: &GuestRam) -> Result<(), Error> {
        self.loaded = Some(load::load(&self.image, &self.files, &self.plan, ram)?);
        self.files.clear();
        Ok(())
    }

    fn symbols(&self) -> Symbols {
        match &self.image {
            GuestImage::Pvh(image) => image.kernel().symbols(),
            GuestImage::Multiboot(image) => image.kernel().symbols(),
            _ => Symbols::default(),
        }
    }

    fn bridge(&self) -> Bridge {
        load::bridge()
    }

    /// All vCPUs but the first one wait to be started.
    fn create_vcpu(
        &self,
        vm: &dyn Vm,
        index: u32,
        cpuid: &[CpuidEntry],
    ) -> Result<Box<dyn Vcpu>, Error> {
        let msrs = common_msrs();
        let start = match index {
            0 => VcpuStart::At(&self.loaded()?.boot),
            _ => VcpuStart::WaitForSipi(&msrs),
        };
        Ok(vm.create_vcpu(index, start, cpuid)?)
    }

    fn finish(
        self: Box<Self>,
        vm: &dyn Vm,
        _vcpus: &[Box<dyn Vcpu>],
        bridge: &Bridge,
        environment: &Environment,
    ) -> Result<Arc<dyn Platform>, Error> {
        let kernel = self.loaded()?.kernel.clone();
        let lines = lines(vm)?;
        let devices = self.devices(vm, lines.clone(), bridge, environment)?;
        let generation = Generation::new(environment.ram.clone(), lines);
        Ok(Arc::new(Pc { devices, kernel, generation }))
    }

    fn restore(
        self: Box<Self>,
        state: &PlatformState,
        vm: &dyn Vm,
        bridge: &Bridge,
        environment: &Environment,
    ) -> Result<Arc<dyn Platform>, Error> {
        let state = state.read::<PcState>()?;
        let kernel = state.kernel()?;
        let lines = lines(vm)?;
        let devices = self.devices(vm, lines.clone(), bridge, environment)?;
        state.restore(&devices)?;
        let generation = Generation::new(environment.ram.clone(), lines);
        Ok(Arc::new(Pc { devices, kernel, generation }))
    }
}

impl Builder {
    /// Makes the devices, and connects them to `vm`.
    fn devices(
        &self,
        vm: &dyn Vm,
        lines: Lines,
        bridge: &Bridge,
        environment: &Environment,
    ) -> Result<Arc<Devices>, Error> {
        let interrupts = vm.interrupt_controller().ok_or(NO_CONTROLLER)?;
        let serial_interrupt = Event::new().map_err(Error::host("creating an eventfd"))?;
        interrupts.connect_edge(ports::SERIAL_IRQ, &serial_interrupt)?;
        let parts = Parts {
            console: environment.console.clone(),
            serial_interrupt,
            rate: environment.rate.clone(),
            stop: environment.stop.clone(),
            debug_exit: self.debug_exit,
            time: environment.time.clone(),
            interrupts: lines,
        };
        let mut devices = Devices::new(&self.plan, parts, bridge)?;
        let Devices { ports, mmio, .. } = &mut devices;
        environment.own.insert_into(ports, mmio, |_| false, &environment.ram)?;
        Ok(Arc::new(devices))
    }
}

const NO_CONTROLLER: nerite_hypervisor::Error =
    nerite_hypervisor::Error::Lacks { capability: "an interrupt controller" };

/// The lines of a VM's interrupt controllers.
fn lines(vm: &dyn Vm) -> Result<Lines, Error> {
    let interrupts = vm.interrupt_controller().ok_or(NO_CONTROLLER)?;
    Ok(Arc::new(move |line, level| {
        if let Err(error) = interrupts.set_line(line, level) {
            log::warn!("interrupt line {line}: {}", Causes(&error));
        }
    }))
}

/// A PC that runs.
#[derive(Debug)]
struct Pc {
    devices: Arc<Devices>,
    kernel: std::ops::Range<u64>,
    generation: Generation,
}

impl Platform for Pc {
    fn handler(&self, _control: Arc<Control>, deadline: Option<Instant>) -> Box<dyn ExitHandler> {
        Box::new(PcDispatcher::new(self.devices.clone(), deadline))
    }

    fn kernel(&self) -> KernelPlace {
        KernelPlace { range: self.kernel.clone(), entry: None, offset: 0 }
    }

    fn backtrace(&self, _ram: &GuestRam, regs: &Regs, _special: &SpecialRegs) -> Vec<Frame> {
        vec![Frame { address: regs.rip, symbol: None, certain: true }]
    }

    fn input(&self) -> Option<Arc<dyn InputLine>> {
        Some(Arc::new(SerialLine(self.devices.serial.clone())))
    }

    fn timer(&self) -> Option<Arc<dyn DeviceTimer>> {
        Some(Arc::new(AlarmTimer(self.devices.clone())))
    }

    fn press_power_button(&self) -> bool {
        self.devices.power.press_power_button();
        true
    }

    /// The words of a kernel are past when it is saved.
    fn renew(&self, identity: &Identity) -> Result<(), Error> {
        if identity.has_words() {
            return Err(Error::WordsTaken);
        }
        identity.generation.map_or(Ok(()), |id| self.generation.renew(id))
    }

    fn save(&self) -> Result<PlatformState, SaveError> {
        PlatformState::new(&PcState::of(&self.devices, &self.kernel))
    }

    fn reset(&self, state: &PlatformState) -> Result<(), Error> {
        Ok(state.read::<PcState>()?.restore(&self.devices)?)
    }
}

/// The alarm of the clock.
struct AlarmTimer(Arc<Devices>);

impl DeviceTimer for AlarmTimer {
    fn changed(&self) -> BorrowedFd<'_> {
        self.0.alarm_changed.as_fd()
    }

    fn acknowledge(&self) {
        self.0.alarm_changed.take();
    }

    fn due(&self) -> Option<Duration> {
        self.0.clock.due()
    }

    fn serve(&self) {
        self.0.clock.check_alarm();
    }
}

/// The serial port as the guest's input.
struct SerialLine(Arc<Serial>);

impl InputLine for SerialLine {
    fn enqueue(&self, bytes: &[u8]) -> usize {
        self.0.enqueue(bytes)
    }

    fn room(&self) -> BorrowedFd<'_> {
        self.0.room()
    }

    fn acknowledge(&self) {
        self.0.acknowledge();
    }
}
