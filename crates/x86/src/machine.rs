//! The part of the state that a processor shares with its local APIC.

use crate::cpu::Cpu;
use crate::msr::INDICES;

/// Indices of the model-specific registers that are part of a processor's state, in the order in
/// which they are to be restored.
pub const MSRS: [u32; INDICES.len()] = INDICES;

impl Cpu {
    /// CR8, the task priority.
    #[must_use]
    pub fn cr8(&self) -> u64 {
        self.core.cr8
    }

    /// Sets CR8, as a write of the local APIC's task priority does.
    pub fn set_cr8(&mut self, value: u64) {
        self.core.cr8 = value & 0xf;
        self.core.attention = true;
    }

    /// Sets `IA32_APIC_BASE`, whose writes by the guest are exits.
    pub fn set_apic_base(&mut self, value: u64) {
        self.core.apic_base = value;
    }
}
