//! The state of a vCPU and of a VM's interrupt chips as plain data, in which it moves between
//! hypervisors, machines and hosts.
//!
//! All is architectural: registers as the guest sees them, chips as their data sheets describe
//! them. There is one version number for both types, because they are saved and restored together;
//! each chip's type has one of its own, because chips are saved alone, too.

mod check;
mod paravirtual;

pub use check::StateError;
pub use paravirtual::{PARAVIRTUAL_MSRS, ParavirtualMsr, absent_value, is_untouched};

use nerite_arch::{CpuidEntry, Msr, Regs, SpecialRegs};
use nerite_irqchip::{SavedBoard, SavedLocalApic};

/// Version of [`VcpuState`] and [`VmState`].
pub const STATE_VERSION: u32 = 1;

/// State of a drained vCPU: no instruction of it is half done.
///
/// Nothing is in it twice: the MSRs that are registers of another part (`IA32_EFER`, FS and GS
/// base, `IA32_APIC_BASE`, x2APIC registers, `IA32_TSC`, `IA32_TSC_DEADLINE`) are in that part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VcpuState {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// The CPUID leaves that the guest sees.
    pub cpuid: Vec<CpuidEntry>,
    /// General registers.
    pub regs: Regs,
    /// Segments, descriptor tables and control registers.
    pub special: SpecialRegs,
    /// Debug registers.
    pub debug: DebugRegs,
    /// XCR0, the enabled parts of the extended state.
    pub xcr0: u64,
    /// An XSAVE area in the standard, non-compacted format (Intel SDM vol. 1, 13.4), of any length
    /// from the legacy region and header (576 bytes) on.
    pub xsave: Vec<u8>,
    /// Model-specific registers, in the order in which they are to be restored.
    pub msrs: Vec<Msr>,
    /// The time-stamp counter.
    pub tsc: u64,
    /// Its rate in kHz, if known.
    pub tsc_khz: Option<u32>,
    /// The local APIC; `None` with [`crate::Irqchip::User`].
    pub apic: Option<SavedLocalApic>,
    /// Exceptions and interrupts on their way to the guest.
    pub events: PendingEvents,
    /// Activity of the vCPU between two instructions; see [`Self::activity`].
    pub run_state: Activity,
}

/// Debug registers (Intel SDM vol. 3, 18.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DebugRegs {
    /// DR0 to DR3, linear addresses of breakpoints.
    pub addresses: [u64; 4],
    /// DR6, the status.
    pub dr6: u64,
    /// DR7, the control.
    pub dr7: u64,
}

/// Exceptions and interrupts that the processor has accepted and not delivered yet, and what holds
/// others back (Intel SDM vol. 3, 7.7 to 7.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PendingEvents {
    /// An exception, to be delivered before the next instruction. CR2 or DR6 are set for it
    /// already.
    pub exception: Option<PendingException>,
    /// An external interrupt that the interrupt controller has handed over: its vector.
    pub interrupt: Option<u8>,
    /// Number of non-maskable interrupts that wait: at most one to be delivered next, and one
    /// latched behind it.
    pub nmis: u8,
    /// `true` if non-maskable interrupts are masked until an IRET.
    pub nmi_masked: bool,
    /// `true` if the next instruction is executed before any interrupt, because the last one was
    /// STI or loaded SS.
    pub shadow: bool,
}

/// An exception that waits for delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PendingException {
    /// Its vector, 0 to 31, and not 2.
    pub vector: u8,
    /// Its error code, for vectors that have one.
    pub error: Option<u32>,
}

/// Activity of a vCPU between two instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Activity {
    /// It executes instructions.
    #[default]
    Runnable,
    /// It has executed HLT and waits for an interrupt in the hypervisor.
    Halted,
    /// An application processor that waits for INIT and a start message.
    WaitForSipi,
}

/// State of the part of a VM that its vCPUs share.
///
/// Lines of devices are not a part of it: all are low after [`crate::Vm::restore`], and devices
/// that assert one do so again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VmState {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// PIC pair, I/O APIC and PIT; `None` with [`crate::Irqchip::User`].
    pub board: Option<SavedBoard>,
    /// Clock of the VM in nanoseconds, from which paravirtual clocks are made.
    pub clock: u64,
}

impl Default for VmState {
    fn default() -> Self {
        Self { version: STATE_VERSION, board: None, clock: 0 }
    }
}

impl VcpuState {
    /// The value of a register in [`Self::msrs`].
    #[must_use]
    pub fn msr(&self, index: u32) -> Option<u64> {
        self.msrs.iter().find(|msr| msr.index == index).map(|msr| msr.value)
    }

    /// Activity in which the vCPU resumes. An exception or interrupt that it has accepted ends a
    /// halt, as does a non-maskable interrupt that can be delivered: nothing else would wake it for
    /// them.
    #[must_use]
    pub const fn activity(&self) -> Activity {
        let events = &self.events;
        let is_woken = events.exception.is_some()
            || events.interrupt.is_some()
            || events.nmis > 0 && !events.nmi_masked;
        match self.run_state {
            Activity::Halted if is_woken => Activity::Runnable,
            activity => activity,
        }
    }
}

/// Largest difference of two vCPUs' time-stamp counters that comes from reading them one after the
/// other, in ticks of 1 ms.
const SYNCHRONISED_MS: u64 = 1000;

/// Makes the time-stamp counters of vCPUs that were saved one after the other those of one moment.
///
/// Counters that are apart by more than a second have been set so by the guest, and stay.
pub fn synchronise_tscs(vcpus: &mut [VcpuState]) {
    let Some(latest) = vcpus.iter().map(|vcpu| vcpu.tsc).max() else { return };
    for vcpu in vcpus {
        let window = u64::from(vcpu.tsc_khz.unwrap_or(0)).saturating_mul(SYNCHRONISED_MS);
        if latest.wrapping_sub(vcpu.tsc) <= window {
            vcpu.tsc = latest;
        }
    }
}

#[cfg(test)]
#[path = "state/state_test.rs"]
mod tests;
