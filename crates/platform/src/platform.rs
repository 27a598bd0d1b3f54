//! The traits of a platform.

use std::fmt;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nerite_arch::{CpuidEntry, Regs, SpecialRegs};
use nerite_devices::{Console, TimeSource};
use nerite_hypervisor::{Vcpu, Vm};
use nerite_inspect::Frame;
use nerite_loader::Symbols;
use nerite_memory::{Backing, GuestRam};
use nerite_pci::Bridge;
use nerite_saved::{RestoreError, SaveError};
use nerite_vcpu::{Control, Handler};

use crate::{
    Error, Identity, MAX_CPUS, MIN_MEMORY, OwnDevices, PlatformState, Rate, Stop, StopToken,
};

/// A handler of the exits of one vCPU.
pub trait ExitHandler: Handler<End = Stop> + fmt::Debug + Send {}

impl<T: Handler<End = Stop> + fmt::Debug + Send> ExitHandler for T {}

/// Resources that a platform and its devices share with the machine.
#[derive(Debug, Clone)]
pub struct Environment {
    /// RAM of the guest.
    pub ram: Arc<GuestRam>,
    /// The guest's output.
    pub console: Arc<Console>,
    /// The end of the machine.
    pub stop: StopToken,
    /// Time of the guest.
    pub time: Arc<dyn TimeSource>,
    /// Input of the guest, or `None` for standard input.
    pub input: Option<Arc<OwnedFd>>,
    /// Devices of the embedding program.
    pub own: OwnDevices,
    /// Limit of the output's rate.
    pub rate: Option<Arc<Rate>>,
    /// Maximum number of log lines that the guest may cause.
    pub log_lines: u32,
}

/// A guest on the way into a machine. The methods are called in this order.
pub trait Builder: fmt::Debug {
    /// Number of vCPUs.
    fn vcpus(&self) -> u32;

    /// `true` if the guest uses real mode.
    fn uses_real_mode(&self) -> bool;

    /// `true` if the guest expects an i8254 interval timer.
    fn needs_pit(&self) -> bool;

    /// Allocates RAM. `cpuid` is what the hypervisor supports.
    ///
    /// # Errors
    /// Fails if the guest does not fit, or the host has no memory.
    fn allocate_ram(&mut self, backing: &Backing, cpuid: &[CpuidEntry]) -> Result<GuestRam, Error>;

    /// Loads the kernel and what it is handed before the VM exists.
    ///
    /// # Errors
    /// Fails if something does not fit.
    fn load(&mut self, ram: &GuestRam) -> Result<(), Error>;

    /// The kernel's functions, at addresses as linked; none if the image does not name them.
    fn symbols(&self) -> Symbols;

    /// PCI bus with the platform's own functions, to which devices are added.
    fn bridge(&self) -> Bridge;

    /// Creates a vCPU in its first state.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    fn create_vcpu(
        &self,
        vm: &dyn Vm,
        index: u32,
        cpuid: &[CpuidEntry],
    ) -> Result<Box<dyn Vcpu>, Error>;

    /// Writes what depends on the VM, and makes the platform. `bridge` has all devices.
    ///
    /// # Errors
    /// Fails if the host does.
    fn finish(
        self: Box<Self>,
        vm: &dyn Vm,
        vcpus: &[Box<dyn Vcpu>],
        bridge: &Bridge,
        environment: &Environment,
    ) -> Result<Arc<dyn Platform>, Error>;

    /// Makes a platform that was saved, in place of [`Self::allocate_ram`] and all that follows:
    /// RAM, vCPUs and devices have their saved states. `state` may come from anywhere.
    ///
    /// # Errors
    /// Fails if the platform cannot have the state, or the host fails.
    fn restore(
        self: Box<Self>,
        _state: &PlatformState,
        _vm: &dyn Vm,
        _bridge: &Bridge,
        _environment: &Environment,
    ) -> Result<Arc<dyn Platform>, Error> {
        Err(RestoreError::failed("platform")("guests of this kind are not saved").into())
    }
}

/// Location of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPlace {
    /// Guest-physical range of the loaded kernel.
    pub range: Range<u64>,
    /// Entry point, if the kernel has symbols at addresses of its own.
    pub entry: Option<u64>,
    /// Distance from where the kernel was linked to where it lies.
    pub offset: u64,
}

/// A guest's platform while it runs.
pub trait Platform: fmt::Debug + Send + Sync {
    /// Makes the handler of one vCPU's exits. The machine's time is up at `deadline`.
    fn handler(&self, control: Arc<Control>, deadline: Option<Instant>) -> Box<dyn ExitHandler>;

    /// Location of the kernel.
    fn kernel(&self) -> KernelPlace;

    /// Backtrace of a vCPU, innermost frame first.
    fn backtrace(&self, ram: &GuestRam, regs: &Regs, special: &SpecialRegs) -> Vec<Frame>;

    /// The line that takes the guest's input, if there is one.
    fn input(&self) -> Option<Arc<dyn InputLine>> {
        None
    }

    /// Presses the power button, upon which a guest that listens powers itself off. Returns `false`
    /// if there is none.
    fn press_power_button(&self) -> bool {
        false
    }

    /// Timer of the platform's devices, if they have one.
    fn timer(&self) -> Option<Arc<dyn DeviceTimer>> {
        None
    }

    /// Clock for output that collects without exits; `None` if there is none of that kind.
    fn output_clock(&self) -> Option<OutputClock> {
        None
    }

    /// Moves coalesced output to where the console's [`flush`](Console::flush) finds it. Never
    /// waits: what exceeds the guest's rate stays, unless this is `final_call`. Returns `true` if
    /// there was anything.
    fn collect_coalesced(&self, _final_call: bool) -> bool {
        false
    }

    /// Returns `true` if there are coalesced writes.
    fn has_coalesced(&self) -> bool {
        false
    }

    /// State of the platform, while no vCPU runs and after all output was collected.
    ///
    /// # Errors
    /// Fails if it cannot be saved, or not now.
    fn save(&self) -> Result<PlatformState, SaveError> {
        Err(SaveError::host("platform")("guests of this kind are not saved"))
    }

    /// Gives a restored guest an identity of its own, while no vCPU runs.
    ///
    /// # Errors
    /// Fails if the guest cannot get it any more.
    fn renew(&self, identity: &Identity) -> Result<(), Error> {
        if identity.has_words() { Err(Error::WordsTaken) } else { Ok(()) }
    }

    /// Puts the platform back into a saved state, while no vCPU runs and after all output was
    /// collected. RAM, vCPUs, interrupt controllers and devices have theirs by now.
    ///
    /// # Errors
    /// Fails if the platform cannot have the state, or the host fails.
    fn reset(&self, _state: &PlatformState) -> Result<(), Error> {
        Err(RestoreError::failed("platform")("guests of this kind are not saved").into())
    }
}

/// A line that takes a guest's input: a serial port, a console.
pub trait InputLine: Send + Sync {
    /// Passes input to the guest and returns how much of it was taken.
    fn enqueue(&self, bytes: &[u8]) -> usize;

    /// Descriptor that is readable when there is room again.
    fn room(&self) -> BorrowedFd<'_>;

    /// Makes [`Self::room`] unreadable until there is room again.
    fn acknowledge(&self);
}

/// A timer of devices, which the machine serves while the guest runs.
pub trait DeviceTimer: Send + Sync {
    /// Descriptor that is readable when [`Self::due`] may have changed.
    fn changed(&self) -> BorrowedFd<'_>;

    /// Makes [`Self::changed`] unreadable until the next change.
    fn acknowledge(&self);

    /// Time until the timer is due; `None` if it is off.
    fn due(&self) -> Option<Duration>;

    /// Does what is due, if something is.
    fn serve(&self);
}

/// Interval at which to look for coalesced output.
#[derive(Debug, Default)]
pub struct OutputClock {
    /// Number of looks that found nothing, since one found something.
    idle: u32,
}

impl OutputClock {
    /// Maximum delay of a guest's output.
    const BUSY: Duration = Duration::from_millis(5);
    /// The same for a guest that has been silent for [`OutputClock::PATIENCE`] looks.
    const IDLE: Duration = Duration::from_millis(20);
    const PATIENCE: u32 = 200;

    /// Time until the next look.
    pub const fn wait(&self) -> Duration {
        if self.idle < Self::PATIENCE { Self::BUSY } else { Self::IDLE }
    }

    /// Records a look, and whether it found something.
    pub const fn looked(&mut self, found: bool) {
        self.idle = if found { 0 } else { self.idle.saturating_add(1) };
    }
}

/// Checks a memory size in bytes and a number of vCPUs, 1 if none is given.
///
/// # Errors
/// Fails if no machine can have them.
pub fn check_size(memory: u64, vcpus: Option<u32>) -> Result<(u64, u32), Error> {
    if memory < MIN_MEMORY {
        return Err(Error::MemoryTooSmall { given: memory });
    }
    let vcpus = vcpus.unwrap_or(1);
    if vcpus == 0 || vcpus > MAX_CPUS {
        return Err(Error::CpuCount { given: vcpus });
    }
    Ok((memory, vcpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_guest_is_looked_at_less_often() {
        let mut clock = OutputClock::default();
        (0..OutputClock::PATIENCE).for_each(|_| clock.looked(false));
        assert_eq!(clock.wait(), OutputClock::IDLE);
        clock.looked(true);
        assert_eq!(clock.wait(), OutputClock::BUSY);
    }

    #[test]
    fn sizes_that_no_machine_can_have_are_refused() {
        assert_eq!(check_size(MIN_MEMORY, None).unwrap(), (MIN_MEMORY, 1));
        assert_eq!(check_size(MIN_MEMORY, Some(MAX_CPUS)).unwrap().1, MAX_CPUS);
        assert!(check_size(MIN_MEMORY - 1, None).is_err());
        assert!(check_size(MIN_MEMORY, Some(0)).is_err());
        assert!(check_size(MIN_MEMORY, Some(MAX_CPUS + 1)).is_err());
    }
}
