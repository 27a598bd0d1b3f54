//! The hypervisor.

use std::fmt;
use std::io;
use std::sync::Arc;

use nerite_arch::CpuidEntry;
use nerite_hypervisor::{Capabilities, DebugCaps, Error, Hypervisor, Vm, VmOptions};
use nerite_memory::GuestRam;
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::{StdRng, SysRng};

use crate::clock::Clock;
use crate::cpuid;
use crate::signal::MAX_VCPUS;
use crate::virtual_clock::{Idle, IdleTime};
use crate::vm::SoftwareVm;

/// A hypervisor whose processors are software.
pub struct Software {
    /// Source of the seeds of vCPUs.
    random: Mutex<StdRng>,
    /// `Some` if the clock of VMs is virtual.
    idle: Option<IdleTime>,
}

impl Software {
    /// Creates the hypervisor. It asks the host's kernel for random numbers once, here, so that the
    /// process can give up the right to do so afterwards.
    ///
    /// # Errors
    /// Fails if the kernel has no random numbers.
    pub fn new() -> Result<Self, Error> {
        let random = StdRng::try_from_rng(&mut SysRng).map_err(|error| Error::Call {
            operation: "seeding random numbers",
            source: io::Error::other(error),
        })?;
        Ok(Self { random: Mutex::new(random), idle: None })
    }

    /// Creates a hypervisor whose guests run the same way each time, as far as they have one vCPU
    /// and hear from no device: their time advances by a nanosecond for each instruction, and
    /// their random numbers are always the same.
    #[must_use]
    pub fn with_virtual_clock(idle: IdleTime) -> Self {
        Self { random: Mutex::new(StdRng::seed_from_u64(0)), idle: Some(idle) }
    }
}

impl fmt::Debug for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Software")
    }
}

impl Hypervisor for Software {
    fn name(&self) -> &'static str {
        "software"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { tsc_deadline: true, in_kernel: false }
    }

    fn max_vcpus(&self) -> usize {
        MAX_VCPUS
    }

    fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, Error> {
        Ok(cpuid::supported())
    }

    fn supported_msrs(&self) -> Result<Vec<u32>, Error> {
        Ok(nerite_x86::MSRS.to_vec())
    }

    fn create_vm(&self, ram: Arc<GuestRam>, options: &VmOptions) -> Result<Box<dyn Vm>, Error> {
        if usize::try_from(options.vcpus).is_ok_and(|vcpus| vcpus > MAX_VCPUS) {
            let (asked, allowed, hypervisor) = (options.vcpus, MAX_VCPUS, self.name());
            return Err(Error::TooManyVcpus { asked, allowed, hypervisor });
        }
        let random = StdRng::from_rng(&mut *self.random.lock());
        let clock =
            self.idle.map_or_else(Clock::host, |time| Clock::of_instructions(Idle::new(time)));
        Ok(Box::new(SoftwareVm::new(ram, options, clock, random)?))
    }

    fn debug_caps(&self) -> DebugCaps {
        DebugCaps { software: true, hardware: true }
    }
}
