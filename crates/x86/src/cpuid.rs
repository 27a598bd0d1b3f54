//! CPUID: the table of the caller, and what the processor implements.

use nerite_arch::CpuidEntry;

use crate::registers::{
    CR4_DE, CR4_FSGSBASE, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE, CR4_PAE, CR4_PCE, CR4_PGE,
    CR4_PSE, CR4_SMAP, CR4_SMEP, CR4_TSD, CR4_UMIP,
};

/// Width of guest-physical addresses if the table does not say.
const PHYSICAL_BITS: u8 = 40;
/// Machine-check exceptions, which never happen.
const CR4_MCE: u64 = 1 << 6;

/// The leaves that the guest sees.
#[derive(Debug, Clone)]
pub(crate) struct Cpuid {
    entries: Vec<CpuidEntry>,
    physical_bits: u8,
    /// Bits of CR4 that the guest may set.
    pub(crate) cr4: u64,
    /// Bits of XCR0 that the guest may set.
    pub(crate) xcr0: u64,
}

impl Cpuid {
    pub(crate) fn new(entries: Vec<CpuidEntry>) -> Self {
        let mut cpuid = Self { entries, physical_bits: PHYSICAL_BITS, cr4: 0, xcr0: 0 };
        if let Some(leaf) = cpuid.leaf(0x8000_0008, 0) {
            cpuid.physical_bits = ((leaf.eax & 0xff) as u8).clamp(32, 52);
        }
        let basic = cpuid.leaf(1, 0).unwrap_or_default();
        let extended = cpuid.leaf(7, 0).unwrap_or_default();
        let mut cr4 = CR4_TSD
            | CR4_DE
            | CR4_PSE
            | CR4_PAE
            | CR4_MCE
            | CR4_PGE
            | CR4_PCE
            | CR4_OSFXSR
            | CR4_OSXMMEXCPT;
        let optional = [
            (basic.ecx & 1 << 26, CR4_OSXSAVE),
            (extended.ebx & 1, CR4_FSGSBASE),
            (extended.ebx & 1 << 7, CR4_SMEP),
            (extended.ebx & 1 << 20, CR4_SMAP),
            (extended.ecx & 1 << 2, CR4_UMIP),
        ];
        for (_, bit) in optional.into_iter().filter(|(is_shown, _)| *is_shown != 0) {
            cr4 |= bit;
        }
        cpuid.cr4 = cr4;
        if let Some(leaf) = cpuid.leaf(0xd, 0) {
            cpuid.xcr0 = u64::from(leaf.eax) & 7;
        }
        cpuid
    }

    pub(crate) const fn physical_bits(&self) -> u8 {
        self.physical_bits
    }

    /// A leaf; leaves without subleaves are the same for all.
    pub(crate) fn leaf(&self, function: u32, index: u32) -> Option<CpuidEntry> {
        self.entries
            .iter()
            .find(|entry| {
                entry.function == function && entry.index.is_none_or(|known| known == index)
            })
            .copied()
    }
}
