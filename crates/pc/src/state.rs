//! Saved state of a PC.

use std::ops::Range;

use nerite_devices::ConsoleState;
use nerite_devices::pc::{ClockState, FwCfgState, PowerManagementState, SerialState};
use nerite_pci::ConfigPortsState;
use nerite_saved::{RestoreError, check_version, refuse, require_same};
use serde::{Deserialize, Serialize};

use crate::platform::{Devices, TestDevices};

/// Version of [`PcState`].
const VERSION: u32 = 1;
const PART: &str = "PC";

/// State of a PC besides interrupt controllers, timer and PCI devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PcState {
    /// Version of this layout: 1.
    version: u32,
    /// First guest-physical address of the kernel.
    kernel_start: u64,
    /// Address after its last one.
    kernel_end: u64,
    console: ConsoleState,
    serial: SerialState,
    clock: ClockState,
    fw_cfg: FwCfgState,
    power: PowerManagementState,
    /// Reset control register.
    reset: u8,
    pci: ConfigPortsState,
    /// Devices for test kernels, if there are any.
    test: Option<TestState>,
}

/// State of the devices for test kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestState {
    registers: [u32; 3],
    #[serde(with = "nerite_saved::bytes")]
    memory: Vec<u8>,
}

impl PcState {
    pub(crate) fn of(devices: &Devices, kernel: &Range<u64>) -> Self {
        let test = |test: &TestDevices| TestState {
            registers: test.registers.each_ref().map(|register| register.save()),
            memory: test.memory.save(),
        };
        Self {
            version: VERSION,
            kernel_start: kernel.start,
            kernel_end: kernel.end,
            console: devices.console.save(),
            serial: devices.serial.save(),
            clock: devices.clock.save(),
            fw_cfg: devices.fw_cfg.save(),
            power: devices.power.save(),
            reset: devices.reset.save(),
            pci: devices.pci.save(),
            test: devices.test.as_ref().map(test),
        }
    }

    /// Location of the kernel.
    pub(crate) fn kernel(&self) -> Result<Range<u64>, RestoreError> {
        check_version(PART, self.version, VERSION)?;
        refuse(PART, "place of the kernel", self.kernel_start >= self.kernel_end)?;
        Ok(self.kernel_start..self.kernel_end)
    }

    /// Puts `devices` into this state. The interrupt controllers have theirs by now.
    pub(crate) fn restore(&self, devices: &Devices) -> Result<(), RestoreError> {
        devices.console.restore(&self.console)?;
        devices.serial.restore(&self.serial)?;
        devices.clock.restore(&self.clock)?;
        devices.fw_cfg.restore(self.fw_cfg);
        devices.power.restore(self.power)?;
        devices.reset.restore(self.reset);
        devices.pci.restore(self.pci)?;
        match (&devices.test, &self.test) {
            (Some(test), Some(saved)) => {
                for (register, saved) in test.registers.iter().zip(saved.registers) {
                    register.restore(saved);
                }
                test.memory.restore(&saved.memory)
            }
            (test, saved) => {
                require_same(PART, "debug-exit port", test.is_none() && saved.is_none())
            }
        }
    }
}

#[cfg(test)]
#[path = "state_test.rs"]
mod tests;
