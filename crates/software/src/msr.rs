//! Model-specific registers that a machine has beside its processor and local APIC.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use nerite_arch::Msr;

/// `IA32_TSC_DEADLINE` (Intel SDM vol. 3, 12.5.4.1).
pub(crate) const TSC_DEADLINE: u32 = 0x6e0;
/// `IA32_APIC_BASE`.
pub(crate) const APIC_BASE: u32 = 0x1b;

/// `IA32_MTRRCAP`: 8 variable ranges, fixed ranges, write-combining (Intel SDM vol. 3, 13.11.1).
const MTRR_CAP: u32 = 0xfe;
const MTRR_CAP_VALUE: u64 = 0x508;

/// Registers that read as zero and ignore writes, as in KVM: microcode version, machine-check
/// control, and AMD's SYSCFG, HWCR, NB_CFG, OSVW and DE_CFG.
const IGNORED: [u32; 10] = [
    0x8b,
    0x179,
    0x17a,
    0xc001_0010,
    0xc001_0015,
    0xc001_001f,
    0xc001_0140,
    0xc001_0141,
    0xc001_1029,
    0x17,
];

/// Memory types of a machine without caches: the registers hold what is written.
#[derive(Debug, Default)]
pub(crate) struct MachineMsrs {
    mtrrs: BTreeMap<u32, u64>,
}

/// AMD's performance event selectors and counters (AMD APM vol. 2, 13.2.3), which kernels take for
/// granted: they count nothing, as in KVM without performance monitoring.
const COUNTERS: RangeInclusive<u32> = 0xc001_0000..=0xc001_0007;

fn is_ignored(index: u32) -> bool {
    IGNORED.contains(&index) || COUNTERS.contains(&index)
}

const fn is_mtrr(index: u32) -> bool {
    matches!(index, 0x200..=0x20f | 0x250 | 0x258 | 0x259 | 0x268..=0x26f | 0x2ff)
}

impl MachineMsrs {
    /// The value of a register; `None` if there is none.
    pub(crate) fn read(&self, index: u32) -> Option<u64> {
        match index {
            MTRR_CAP => Some(MTRR_CAP_VALUE),
            _ if is_ignored(index) => Some(0),
            _ if is_mtrr(index) => Some(self.mtrrs.get(&index).copied().unwrap_or(0)),
            _ => None,
        }
    }

    /// The registers that have been written.
    pub(crate) fn all(&self) -> impl Iterator<Item = Msr> + '_ {
        self.mtrrs.iter().map(|(index, value)| Msr { index: *index, value: *value })
    }

    /// Writes a register. Returns `false` if there is none.
    pub(crate) fn write(&mut self, index: u32, value: u64) -> bool {
        if is_mtrr(index) {
            self.mtrrs.insert(index, value);
            return true;
        }
        is_ignored(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_types_are_kept_and_others_are_not_there() {
        let mut msrs = MachineMsrs::default();
        assert!(msrs.write(0x2ff, 0xc06));
        assert_eq!(
            (msrs.read(0x2ff), msrs.read(0x200), msrs.read(0x8b)),
            (Some(0xc06), Some(0), Some(0))
        );
        assert_eq!((msrs.read(MTRR_CAP), msrs.write(MTRR_CAP, 1)), (Some(0x508), false));
        assert_eq!((msrs.write(0xc001_0007, 1), msrs.read(0xc001_0007)), (true, Some(0)));
        assert_eq!((msrs.read(0x1234), msrs.write(0x1234, 1)), (None, false));
    }
}
