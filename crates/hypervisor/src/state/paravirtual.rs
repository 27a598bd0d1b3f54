//! The model-specific registers of KVM's paravirtual features (Linux,
//! Documentation/virt/kvm/x86/msr.rst and cpuid.rst).

use nerite_arch::{CpuidEntry, Msr};

/// CPUID leaf whose EAX has the features.
const LEAF: u32 = 0x4000_0001;

/// A register of a paravirtual feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParavirtualMsr {
    /// Index of the register.
    pub index: u32,
    /// Its name.
    pub name: &'static str,
    /// Bit of the feature in the CPUID leaf.
    bit: u32,
    /// Value after a reset.
    pub reset: u64,
}

const fn msr(index: u32, name: &'static str, bit: u32) -> ParavirtualMsr {
    ParavirtualMsr { index, name, bit, reset: 0 }
}

/// The registers, by index.
pub const PARAVIRTUAL_MSRS: [ParavirtualMsr; 11] = [
    msr(0x11, "KVM_WALL_CLOCK", 0),
    msr(0x12, "KVM_SYSTEM_TIME", 0),
    msr(0x4b56_4d00, "KVM_WALL_CLOCK_NEW", 3),
    msr(0x4b56_4d01, "KVM_SYSTEM_TIME_NEW", 3),
    msr(0x4b56_4d02, "KVM_ASYNC_PF_EN", 4),
    msr(0x4b56_4d03, "KVM_STEAL_TIME", 5),
    msr(0x4b56_4d04, "KVM_EOI_EN", 6),
    ParavirtualMsr { index: 0x4b56_4d05, name: "KVM_POLL_CONTROL", bit: 12, reset: 1 },
    msr(0x4b56_4d06, "KVM_ASYNC_PF_INT", 14),
    msr(0x4b56_4d07, "KVM_ASYNC_PF_ACK", 14),
    msr(0x4b56_4d08, "KVM_MIGRATION_CONTROL", 17),
];

impl ParavirtualMsr {
    /// The register with this index, if it is one of them.
    #[must_use]
    pub fn of(index: u32) -> Option<&'static Self> {
        PARAVIRTUAL_MSRS.iter().find(|known| known.index == index)
    }

    /// Returns `true` if a guest with these CPUID leaves has been shown the feature.
    #[must_use]
    pub fn is_shown(&self, cpuid: &[CpuidEntry]) -> bool {
        let has_bit = |entry: &CpuidEntry| entry.eax >> self.bit & 1 == 1;
        cpuid.iter().any(|entry| entry.function == LEAF && has_bit(entry))
    }
}

/// Value of a model-specific register that is not there, for a guest that has not written to it.
#[must_use]
pub fn absent_value(index: u32) -> u64 {
    ParavirtualMsr::of(index).map_or(0, |known| known.reset)
}

/// Returns `true` if a register is no state of a guest with these CPUID leaves: it is one of a
/// paravirtual feature that the guest has not been shown, and has the value that it has after a
/// reset.
#[must_use]
pub fn is_untouched(msr: Msr, cpuid: &[CpuidEntry]) -> bool {
    ParavirtualMsr::of(msr.index)
        .is_some_and(|known| known.reset == msr.value && !known.is_shown(cpuid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_register_is_state_once_it_is_written() {
        let poll = |value| Msr { index: 0x4b56_4d05, value };
        let leaf = |eax| [CpuidEntry { function: LEAF, eax, ..CpuidEntry::default() }];
        for cpuid in [&[][..], &leaf(0), &leaf(!(1 << 12))] {
            assert!(is_untouched(poll(1), cpuid));
            assert!(!is_untouched(poll(0), cpuid));
        }
        assert!(!is_untouched(poll(1), &leaf(1 << 12)));
        assert!(is_untouched(Msr { index: 0x4b56_4d01, value: 0 }, &[]));
        assert!(!is_untouched(Msr { index: 0x4b56_4d01, value: 1 }, &[]));
        assert!(!is_untouched(Msr { index: 0x174, value: 0 }, &[]));
    }
}
