//! Checks of a state that comes from a file or another host, before a hypervisor gets it.

use nerite_arch::{Segment, SpecialRegs};
use nerite_saved::RestoreError;

use super::{ParavirtualMsr, PendingEvents, STATE_VERSION, VcpuState, VmState};

/// A saved state that cannot be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// It is of another version.
    #[error("state has version {found}, expected {STATE_VERSION}")]
    Version {
        /// Version of the state.
        found: u32,
    },
    /// A field has a value that no processor has, or this hypervisor cannot have.
    #[error("{field} has an impossible value: {value}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Its value, or what is wrong with it.
        value: String,
    },
    /// A model-specific register is not a part of the state here, or cannot have the value.
    #[error("MSR {index:#x}{} cannot have the value {value:#x}", name(*index))]
    Msr {
        /// The register's index.
        index: u32,
        /// Its value.
        value: u64,
    },
    /// The guest was shown a feature that there is not.
    #[error("the guest has been shown {feature}, which is not available here")]
    Feature {
        /// Name of the feature.
        feature: String,
    },
    /// A chip's state is not one.
    #[error(transparent)]
    Chip(#[from] RestoreError),
    /// An instruction is half done: the vCPU was not drained.
    #[error("an instruction is not complete")]
    NotDrained,
}

/// Name of a model-specific register in brackets, if it is known here.
fn name(index: u32) -> String {
    let known = ParavirtualMsr::of(index);
    known.map(|known| format!(" ({})", known.name)).unwrap_or_default()
}

/// Most CPUID leaves and MSRs that a state can have.
const MAX_ENTRIES: usize = 1024;
/// The legacy region and header of an XSAVE area (Intel SDM vol. 1, 13.4.1 and 13.4.2).
const XSAVE_MIN: usize = 576;
/// Room for any extended state there is; AMX makes it some 11 KiB.
const XSAVE_MAX: usize = 64 << 10;
/// Offset of MXCSR, and its bits (Intel SDM vol. 1, 10.2.3; bit 17 is AMD's).
const MXCSR: usize = 24;
const MXCSR_BITS: u32 = 0x2_ffff;
/// Offset of XCOMP_BV and the reserved rest of the header.
const XCOMP_BV: std::ops::Range<usize> = 520..XSAVE_MIN;

/// RFLAGS: bit 1, which is always set, and the bits that are always clear.
const RFLAGS_ONE: u64 = 2;
const RFLAGS_ZERO: u64 = !0x003f_7fd7;
/// Bits of CR0 and CR4 that exist (Intel SDM vol. 3, 2.5).
const CR0: u64 = 0xe005_003f;
const CR4: u64 = 0x01f7_7fff | 1 << 27 | 1 << 28 | 1 << 32;
const CR0_PE: u64 = 1;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
/// Bits of `IA32_EFER` that exist (AMD APM vol. 2, 3.1.7).
const EFER: u64 = 0x0036_fd01;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Most bits of a guest-physical address.
const PHYSICAL: u32 = 52;

fn bad(field: &'static str, value: u64) -> StateError {
    StateError::Field { field, value: format!("{value:#x}") }
}

fn refuse(field: &'static str, value: u64, is_bad: bool) -> Result<(), StateError> {
    if is_bad { Err(bad(field, value)) } else { Ok(()) }
}

/// `true` if bits 63 and below repeat the highest bit of a linear address of this width.
fn is_canonical(address: u64, bits: u32) -> bool {
    let unused = u64::BITS.saturating_sub(bits);
    let signed = address.wrapping_shl(unused).cast_signed();
    signed.wrapping_shr(unused).cast_unsigned() == address
}

impl VcpuState {
    /// Checks all that can be checked without a hypervisor: a state that passes is one that a
    /// processor could have.
    ///
    /// # Errors
    /// Names the first field that has an impossible value.
    pub fn check(&self) -> Result<(), StateError> {
        if self.version != STATE_VERSION {
            return Err(StateError::Version { found: self.version });
        }
        let count = |list: usize| u64::try_from(list).unwrap_or(u64::MAX);
        refuse("cpuid", count(self.cpuid.len()), self.cpuid.len() > MAX_ENTRIES)?;
        refuse("msrs", count(self.msrs.len()), self.msrs.len() > MAX_ENTRIES)?;
        self.special.check()?;
        let rflags = self.regs.rflags;
        refuse("rflags", rflags, rflags & RFLAGS_ZERO != 0 || rflags & RFLAGS_ONE == 0)?;
        let width = self.special.linear_bits();
        let is_64 = self.special.efer & EFER_LMA != 0 && self.special.cs.l;
        refuse("rip", self.regs.rip, is_64 && !is_canonical(self.regs.rip, width))?;
        refuse("rip", self.regs.rip, !is_64 && self.regs.rip >> 32 != 0)?;
        refuse("dr6", self.debug.dr6, self.debug.dr6 >> 32 != 0)?;
        refuse("dr7", self.debug.dr7, self.debug.dr7 >> 32 != 0)?;
        refuse("xcr0", self.xcr0, self.xcr0 & 1 == 0 || self.xcr0 & 6 == 4)?;
        check_xsave(&self.xsave)?;
        self.events.check()?;
        let base = self.special.apic_base;
        let apic_base = self.apic.map_or(base, |apic| apic.base);
        refuse("apic_base", base, base != apic_base)
    }
}

impl VmState {
    /// Checks the version.
    ///
    /// # Errors
    /// Fails if it is another one.
    pub fn check(&self) -> Result<(), StateError> {
        if self.version != STATE_VERSION {
            return Err(StateError::Version { found: self.version });
        }
        Ok(())
    }
}

fn check_xsave(area: &[u8]) -> Result<(), StateError> {
    let length = u64::try_from(area.len()).unwrap_or(u64::MAX);
    refuse("xsave length", length, !(XSAVE_MIN..=XSAVE_MAX).contains(&area.len()))?;
    let mxcsr = area.get(MXCSR..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
    let mxcsr = u32::from_le_bytes(mxcsr);
    refuse("mxcsr", mxcsr.into(), mxcsr & !MXCSR_BITS != 0)?;
    let is_compacted = area.get(XCOMP_BV).is_none_or(|rest| rest.iter().any(|byte| *byte != 0));
    refuse("xsave header", 0, is_compacted)
}

impl PendingEvents {
    fn check(&self) -> Result<(), StateError> {
        refuse("pending NMIs", self.nmis.into(), self.nmis > 2)?;
        let Some(exception) = self.exception else { return Ok(()) };
        let vector = exception.vector;
        refuse("exception vector", vector.into(), vector > 31 || vector == 2)?;
        // Intel SDM vol. 3, table 7-1; 29 and 30 are AMD's.
        let has_error = matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30);
        let error = exception.error.unwrap_or(0);
        refuse("exception error code", error.into(), exception.error.is_some_and(|_| !has_error))
    }
}

trait Check {
    fn check(&self) -> Result<(), StateError>;
    fn linear_bits(&self) -> u32;
}

impl Check for SpecialRegs {
    fn linear_bits(&self) -> u32 {
        if self.cr4 & CR4_LA57 != 0 { 57 } else { 48 }
    }

    fn check(&self) -> Result<(), StateError> {
        let Self { cr0, cr3, cr4, cr8, efer, .. } = *self;
        let is_paged = cr0 & CR0_PG != 0;
        refuse("cr0", cr0, cr0 & !CR0 != 0 || is_paged && cr0 & CR0_PE == 0)?;
        refuse("cr0", cr0, cr0 & (CR0_NW | CR0_CD) == CR0_NW)?;
        refuse("cr3", cr3, cr3.wrapping_shr(PHYSICAL) != 0)?;
        refuse("cr4", cr4, cr4 & !CR4 != 0)?;
        refuse("cr8", cr8, cr8 > 15)?;
        let is_long = efer & EFER_LMA != 0;
        let is_consistent = is_long == (efer & EFER_LME != 0 && is_paged);
        refuse("efer", efer, efer & !EFER != 0 || !is_consistent)?;
        refuse("cr4", cr4, is_long && cr4 & CR4_PAE == 0)?;
        let width = self.linear_bits();
        for (name, Segment { base, kind, dpl, .. }) in self.segments() {
            refuse(name, kind.into(), kind > 15)?;
            refuse(name, dpl.into(), dpl > 3)?;
            refuse(name, base, !is_canonical(base, width))?;
        }
        refuse("gdt", self.gdt.base, !is_canonical(self.gdt.base, width))?;
        refuse("idt", self.idt.base, !is_canonical(self.idt.base, width))
    }
}
