//! The devices of a small PC.

use std::sync::Arc;

use nerite_arch::pc::{CLOCK_IRQ, ECAM, SCI_IRQ, acpi};
use nerite_bus::{Bus, Device};
use nerite_devices::pc::{
    Absent, Clock, DebugExit, Equipment, FwCfg, KeyboardController, PowerManagement, PvPanic,
    Requests, ResetControl, Serial, TestLines, TestMemory, TestRegister,
};
use nerite_devices::{Console, TimeSource};
use nerite_memory::GAP_START;
use nerite_pci::{Bridge, ConfigPorts, Ecam, Event, FIRST_PORT, LAST_PORT, WINDOW};
use nerite_platform::{Rate, StopToken};

use crate::Error;
use crate::plan::PcPlan;

/// Ports of this machine.
pub(crate) mod ports {
    /// The first serial port.
    pub(crate) const SERIAL: u16 = 0x3f8;
    /// Its interrupt.
    pub(crate) const SERIAL_IRQ: u32 = 4;
}

/// State shared by all vCPUs of such a machine.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) ports: Bus,
    pub(crate) mmio: Bus,
    pub(crate) requests: Arc<Requests>,
    pub(crate) serial: Arc<Serial>,
    pub(crate) console: Arc<Console>,
    pub(crate) rate: Option<Arc<Rate>>,
    pub(crate) stop: StopToken,
    pub(crate) clock: Arc<Clock>,
    /// Signalled when the clock's alarm may be due at another time.
    pub(crate) alarm_changed: Event,
    pub(crate) fw_cfg: Arc<FwCfg>,
    pub(crate) power: Arc<PowerManagement>,
    pub(crate) reset: Arc<ResetControl>,
    pub(crate) pci: Arc<ConfigPorts>,
    /// Further devices, for test kernels.
    pub(crate) test: Option<TestDevices>,
}

/// Devices for test kernels that have a state.
#[derive(Debug, Default)]
pub(crate) struct TestDevices {
    pub(crate) registers: [Arc<TestRegister>; 3],
    pub(crate) memory: Arc<TestMemory>,
}

/// Raises (`true`) and lowers a line of the interrupt controllers.
pub(crate) type Lines = Arc<dyn Fn(u32, bool) + Send + Sync>;

/// Parts of the platform besides the plan.
pub(crate) struct Parts {
    pub(crate) console: Arc<Console>,
    /// Each signal is an edge at the serial port's interrupt.
    pub(crate) serial_interrupt: Event,
    pub(crate) rate: Option<Arc<Rate>>,
    pub(crate) stop: StopToken,
    /// Port of the debug-exit device, if there is one. The other devices that test kernels expect
    /// are there then, too.
    pub(crate) debug_exit: Option<u16>,
    /// Raises and lowers lines of the interrupt controllers.
    pub(crate) interrupts: Lines,
    pub(crate) time: Arc<dyn TimeSource>,
}

impl Devices {
    pub(crate) fn new(plan: &PcPlan, parts: Parts, pci: &Bridge) -> Result<Self, Error> {
        let Parts { console, serial_interrupt, rate, stop, debug_exit, interrupts, time } = parts;
        let requests = Arc::new(Requests::default());
        let serial = Serial::new(console.clone(), serial_interrupt, requests.clone())
            .map_err(Error::host("making the serial port"))?;
        let serial = Arc::new(serial);
        let low_memory = plan.memory.min(GAP_START);
        let equipment = Equipment {
            low_memory,
            high_memory: plan.memory.saturating_sub(low_memory),
            cpus: plan.cpus,
        };
        let cpus = u16::try_from(plan.cpus).unwrap_or(u16::MAX);
        let lines = interrupts.clone();
        let sci = Box::new(move |level| lines(SCI_IRQ.into(), level));
        let power = PowerManagement::new(acpi::S5, requests.clone(), time.clone(), sci);
        let power = Arc::new(power);
        let alarm_changed = Event::new().map_err(Error::host("creating an eventfd"))?;
        let lines = interrupts.clone();
        let alarm = Box::new(move |level| lines(CLOCK_IRQ.into(), level));
        let event = alarm_changed.clone();
        let clock = Clock::new(&equipment, time, alarm, Box::new(move || event.signal()));
        let clock = Arc::new(clock);
        let fw_cfg = Arc::new(FwCfg::new(plan.memory, cpus));
        let config = Arc::new(pci.ports());
        let reset = Arc::new(ResetControl::new(config.clone(), requests.clone()));
        let test = debug_exit.map(|_| TestDevices::default());

        let mut bus = Bus::new("port");
        let mut add = |name, first: u16, count: u16, device: Arc<dyn Device>| {
            let last = first.saturating_add(count.saturating_sub(1));
            bus.insert(name, first.into()..=last.into(), device)
        };
        add("serial port", ports::SERIAL, Serial::PORTS, serial.clone())?;
        let keyboard = KeyboardController::new(requests.clone());
        add("keyboard controller", KeyboardController::PORT, 1, Arc::new(keyboard))?;
        add("pvpanic", PvPanic::PORT, 1, Arc::new(PvPanic::new(requests.clone())))?;
        for first in Absent::SERIAL {
            add("absent serial port", first, Absent::SERIAL_PORTS, Arc::new(Absent))?;
        }
        add("absent POST display", Absent::POST_DISPLAY, 1, Arc::new(Absent))?;
        add("clock", Clock::PORT, 2, clock.clone())?;
        add("fw_cfg", FwCfg::SELECTOR, 2, fw_cfg.clone())?;
        add("power management", acpi::PM1_EVENT, PowerManagement::PORTS, power.clone())?;
        let pci_ports = LAST_PORT.saturating_sub(FIRST_PORT).saturating_add(1);
        add("PCI host", FIRST_PORT, pci_ports, reset.clone())?;
        let mut mmio = Bus::new("MMIO");
        if let (Some(port), Some(test)) = (debug_exit, &test) {
            let lines = move |line, level| interrupts(line, level);
            let lines = Arc::new(TestLines::new(Box::new(lines)));
            add("test interrupt lines", TestLines::PORT, TestLines::PORTS, lines)?;
            let first = [TestRegister::PORT, TestRegister::FLUSH_PORT, TestRegister::BYTE_PORT];
            for (first, register) in first.into_iter().zip(&test.registers) {
                add("test register", first, TestRegister::PORTS, register.clone())?;
            }
            let last = TestMemory::ADDRESS.saturating_add(TestMemory::SIZE.saturating_sub(1));
            mmio.insert("test memory", TestMemory::ADDRESS..=last, test.memory.clone())?;
            let exit = DebugExit::new(requests.clone());
            add("debug exit", port, DebugExit::PORTS, Arc::new(exit))
                .map_err(|source| Error::DebugExitPort { port, source })?;
        }
        let ecam = u64::from(ECAM);
        let last = ecam.saturating_add(Ecam::SIZE.saturating_sub(1));
        mmio.insert("PCI configuration space", ecam..=last, Arc::new(Ecam::new(pci)))?;
        mmio.insert("PCI devices", WINDOW, Arc::new(pci.window()))?;
        Ok(Self {
            ports: bus,
            mmio,
            requests,
            serial,
            console,
            rate,
            stop,
            clock,
            alarm_changed,
            fw_cfg,
            power,
            reset,
            pci: config,
            test,
        })
    }
}
