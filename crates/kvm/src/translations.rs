//! Translations of guest addresses that the processor has cached.

use nerite_arch::SpecialRegs;
use nerite_hypervisor::{Error, Vcpu as _};

use crate::KvmVcpu;

/// Global pages, in CR4 (Intel SDM vol. 3, 2.5).
const CR4_PGE: u64 = 1 << 7;

impl KvmVcpu {
    /// Drops the translations of this vCPU, which is about to get `special`.
    ///
    /// Another hypervisor may have executed the guest since, and the guest may have changed its
    /// page tables there. KVM drops translations when a control register changes: so one does.
    pub(crate) fn drop_translations(&mut self, special: &SpecialRegs) -> Result<(), Error> {
        self.set_special_regs(&SpecialRegs { cr4: special.cr4 ^ CR4_PGE, ..*special })
    }
}
