//! ACPI's fixed power management registers (ACPI 6.5, 4.8.3), and a PC's reset control register.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nerite_bus::{Device, Width};
use nerite_saved::{RestoreError, refuse};
use serde::{Deserialize, Serialize};

use super::{Request, Requests, ResetKind};
use crate::TimeSource;

/// PM1 event and control registers and the PM timer, in twelve ports.
///
/// | offset | width | what |
/// |---|---|---|
/// | 0 | 2 | PM1 status: power button; a written 1 clears a bit |
/// | 2 | 2 | PM1 enable |
/// | 4 | 2 | PM1 control: ACPI is on; sleep type and enable |
/// | 8 | 4 | PM timer: 3.579545 MHz, 32 bits |
///
/// The power button is of the fixed kind: while its bit is set in status and in enable, the SCI is
/// raised.
pub struct PowerManagement {
    events: Mutex<Events>,
    /// Raises (`true`) and lowers the SCI, whose line is level-triggered.
    sci: Sci,
    control: AtomicU16,
    time: Arc<dyn TimeSource>,
    /// A time, and the timer's value then.
    timer: Mutex<(Duration, u32)>,
    /// The sleep type of power-off.
    off: u8,
    requests: Arc<Requests>,
}

/// Raises (`true`) or lowers the system control interrupt (ACPI 6.5, 4.8.2.1).
pub type Sci = Box<dyn Fn(bool) + Send + Sync>;

/// PM1 event registers.
#[derive(Debug, Default)]
struct Events {
    status: u16,
    enable: u16,
}

/// Saved state of [`PowerManagement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerManagementState {
    /// PM1 status; only the power button's bit can be set.
    #[serde(default)]
    pub status: u16,
    /// PM1 enable.
    pub enable: u16,
    /// PM1 control.
    pub control: u16,
    /// PM timer.
    pub timer: u32,
}

/// `PWRBTN_STS` and `PWRBTN_EN`.
const POWER_BUTTON: u16 = 1 << 8;
/// `SCI_EN`: events raise an SCI; the machine is in ACPI mode.
const SCI_ENABLE: u16 = 1;
/// `SLP_EN`: enter the sleep state.
const SLEEP_ENABLE: u16 = 1 << 13;
/// The lowest bit of `SLP_TYP`, which has three.
const SLEEP_TYPE_SHIFT: u32 = 10;
/// The PM timer's rate in Hz.
const TIMER_RATE: u128 = 3_579_545;

impl PowerManagement {
    /// Number of ports.
    pub const PORTS: u16 = 12;

    /// Registers that ask for power-off when the guest enters the sleep state of type `off`. The
    /// PM timer counts the elapsed time of `time`; events raise `sci`.
    pub fn new(off: u8, requests: Arc<Requests>, time: Arc<dyn TimeSource>, sci: Sci) -> Self {
        Self {
            events: Mutex::default(),
            sci,
            control: AtomicU16::new(SCI_ENABLE),
            timer: Mutex::new((time.elapsed(), 0)),
            time,
            off,
            requests,
        }
    }

    /// Presses the power button and releases it. A guest that has not enabled the event notices
    /// nothing, until it does.
    pub fn press_power_button(&self) {
        self.change_events(|events| events.status |= POWER_BUTTON);
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        // Each register is whole at every moment.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the event registers, and the SCI with them.
    fn change_events(&self, change: impl FnOnce(&mut Events)) {
        let mut events = self.events();
        let before = events.wants_sci();
        change(&mut events);
        // Under the lock: the line follows the registers in their order.
        if events.wants_sci() != before {
            (self.sci)(!before);
        }
    }

    fn timer(&self) -> u32 {
        let (start, value) = *self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = self.time.elapsed().saturating_sub(start);
        let ticks = elapsed.as_nanos().saturating_mul(TIMER_RATE) / 1_000_000_000;
        // It wraps at 32 bits.
        value.wrapping_add(u32::try_from(ticks & u128::from(u32::MAX)).unwrap_or(0))
    }

    /// Registers and timer.
    pub fn save(&self) -> PowerManagementState {
        let Events { status, enable } = *self.events();
        PowerManagementState {
            status,
            enable,
            control: self.control.load(Ordering::Relaxed),
            timer: self.timer(),
        }
    }

    /// Takes saved registers. The timer resumes from its saved value. The interrupt controllers
    /// must have their state by now, as the SCI may be raised.
    ///
    /// # Errors
    /// Fails if the registers cannot have these values.
    pub fn restore(&self, saved: PowerManagementState) -> Result<(), RestoreError> {
        let PowerManagementState { status, enable, control, timer } = saved;
        refuse("power management", "status", status & !POWER_BUTTON != 0)?;
        let is_control = control & SLEEP_ENABLE == 0 && control & SCI_ENABLE != 0;
        refuse("power management", "control", !is_control)?;
        let mut events = self.events();
        *events = Events { status, enable };
        (self.sci)(events.wants_sci());
        drop(events);
        self.control.store(control, Ordering::Relaxed);
        *self.timer.lock().unwrap_or_else(PoisonError::into_inner) = (self.time.elapsed(), timer);
        Ok(())
    }
}

impl Events {
    const fn wants_sci(&self) -> bool {
        self.status & self.enable & POWER_BUTTON != 0
    }
}

impl fmt::Debug for PowerManagement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PowerManagement")
            .field("events", &self.events)
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

impl Device for PowerManagement {
    fn read(&self, offset: u64, width: Width) -> u64 {
        let value = match offset {
            0 => self.events().status.into(),
            2 => self.events().enable.into(),
            4 => self.control.load(Ordering::Relaxed).into(),
            8 => self.timer().into(),
            _ => 0,
        };
        width.truncate(value)
    }

    fn write(&self, offset: u64, _width: Width, value: u64) {
        let [low, high, ..] = value.to_le_bytes();
        let value = u16::from_le_bytes([low, high]);
        match offset {
            0 => self.change_events(|events| events.status &= !value),
            2 => self.change_events(|events| events.enable = value),
            4 => {
                self.control.store(value & !SLEEP_ENABLE | SCI_ENABLE, Ordering::Relaxed);
                let kind = value >> SLEEP_TYPE_SHIFT & 7;
                if value & SLEEP_ENABLE != 0 && kind == u16::from(self.off) {
                    self.requests.raise(Request::PowerOff);
                }
            }
            _ => {}
        }
    }
}

/// The reset control register at port 0xCF9 (Intel PIIX3, 2.5.6), which lies among the ports of the
/// PCI host: other accesses go to that.
pub struct ResetControl {
    pci: Arc<dyn Device>,
    value: AtomicU8,
    requests: Arc<Requests>,
}

impl ResetControl {
    /// The offset of the register from port 0xCF8.
    const OFFSET: u64 = 1;
    /// Resets the processor at the change from 0 to 1.
    const RESET: u8 = 1 << 2;

    /// The register in front of `pci`, the device for the ports 0xCF8 to 0xCFF.
    pub fn new(pci: Arc<dyn Device>, requests: Arc<Requests>) -> Self {
        Self { pci, value: AtomicU8::new(0), requests }
    }

    /// Value of the register.
    pub fn save(&self) -> u8 {
        self.value.load(Ordering::Relaxed)
    }

    /// Takes a saved value, which resets nothing: that was done when it was written.
    pub fn restore(&self, saved: u8) {
        self.value.store(saved, Ordering::Relaxed);
    }
}

impl Device for ResetControl {
    fn read(&self, offset: u64, width: Width) -> u64 {
        match (offset, width.bytes()) {
            (Self::OFFSET, 1) => self.value.load(Ordering::Relaxed).into(),
            _ => self.pci.read(offset, width),
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if (offset, width.bytes()) != (Self::OFFSET, 1) {
            return self.pci.write(offset, width, value);
        }
        let [value, ..] = value.to_le_bytes();
        self.value.store(value, Ordering::Relaxed);
        if value & Self::RESET != 0 {
            self.requests.raise(Request::Reset(ResetKind::Register));
        }
    }
}

impl fmt::Debug for ResetControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResetControl").field("value", &self.value).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::HostTime;

    /// Stores what is written at offset 0; the rest is absent.
    #[derive(Debug, Default)]
    struct Address(std::sync::atomic::AtomicU64);

    impl Device for Address {
        fn read(&self, offset: u64, width: Width) -> u64 {
            if offset == 0 { self.0.load(Ordering::Relaxed) } else { width.all_ones() }
        }

        fn write(&self, _offset: u64, _width: Width, value: u64) {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    fn width(bytes: u8) -> Width {
        Width::new(bytes).unwrap()
    }

    /// Registers, and the levels that the SCI has had.
    fn registers(requests: Arc<Requests>) -> (PowerManagement, Arc<Mutex<Vec<bool>>>) {
        let levels = Arc::new(Mutex::new(Vec::new()));
        let line = levels.clone();
        let sci = Box::new(move |level| line.lock().unwrap().push(level));
        (PowerManagement::new(5, requests, Arc::new(HostTime::new()), sci), levels)
    }

    #[test]
    fn the_power_button_raises_the_sci_until_it_is_cleared() {
        let (pm, levels) = registers(Arc::default());
        pm.press_power_button();
        assert_eq!((pm.read(0, width(2)), levels.lock().unwrap().as_slice()), (0x100, &[][..]));
        for (offset, value) in [(2, 0x120), (0, 0x20), (2, 0x100), (0, 0x100), (0, 0x100)] {
            pm.write(offset, width(2), value);
        }
        assert_eq!(*levels.lock().unwrap(), [true, false]);
        pm.press_power_button();
        pm.press_power_button();
        pm.write(2, width(2), 0);
        assert_eq!(*levels.lock().unwrap(), [true, false, true, false]);
        assert_eq!(pm.read(0, width(2)), 0x100, "it stays pressed");
    }

    #[test]
    fn a_pressed_button_is_saved() {
        let (pm, _) = registers(Arc::default());
        pm.write(2, width(2), 0x100);
        pm.press_power_button();
        let (other, levels) = registers(Arc::default());
        other.restore(pm.save()).unwrap();
        assert_eq!(*levels.lock().unwrap(), [true]);
        let bad = PowerManagementState { status: 0x101, ..pm.save() };
        assert!(other.restore(bad).is_err());
    }

    #[test]
    fn only_the_sleep_state_of_power_off_powers_off() {
        let requests = Arc::new(Requests::default());
        let (pm, _) = registers(requests.clone());
        assert_eq!(pm.read(4, width(2)) & 1, 1, "ACPI is on");
        pm.write(4, width(2), 5 << 10);
        pm.write(4, width(2), 1 << 10 | 1 << 13);
        assert!(requests.take().is_none());
        pm.write(4, width(2), 5 << 10 | 1 << 13);
        assert!(matches!(requests.take(), Some(Request::PowerOff)));
        assert_eq!(pm.read(4, width(2)), 5 << 10 | 1);
    }

    #[test]
    fn the_timer_runs_at_its_rate() {
        let (pm, _) = registers(Arc::default());
        let (start, first) = (Instant::now(), pm.read(8, width(4)));
        std::thread::sleep(std::time::Duration::from_millis(20));
        let (ticks, elapsed) = (pm.read(8, width(4)) - first, start.elapsed());
        assert!(ticks >= 3_579_545 / 50, "{ticks}");
        assert!(
            u128::from(ticks) <= (elapsed.as_nanos() + 1_000_000) * TIMER_RATE / 1_000_000_000,
            "{ticks}"
        );
    }

    #[test]
    fn reset_control_leaves_the_pci_host_alone() {
        let requests = Arc::new(Requests::default());
        let control = ResetControl::new(Arc::new(Address::default()), requests.clone());
        control.write(0, width(4), 0x8000_0400);
        assert_eq!(control.read(0, width(4)), 0x8000_0400);
        assert_eq!(control.read(4, width(4)), 0xffff_ffff);
        control.write(1, width(1), 2);
        assert_eq!(control.read(1, width(1)), 2);
        assert!(requests.take().is_none());
        control.write(1, width(1), 6);
        assert!(matches!(requests.take(), Some(Request::Reset(ResetKind::Register))));
    }
}
