//! `IA32_APIC_BASE` and the modes that it switches between (Intel SDM vol. 3, 12.4.4 and 12.12.1).

use super::{LocalApic, Refused};

/// Bits of `IA32_APIC_BASE`.
pub(super) const BOOTSTRAP: u64 = 1 << 8;
const X2APIC: u64 = 1 << 10;
const GLOBAL_ENABLE: u64 = 1 << 11;
/// Bits 7:0 and 9.
const RESERVED: u64 = 0x2ff;

/// Bits of `IA32_APIC_BASE` that are the guest-physical address of the xAPIC registers.
pub const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// `IA32_APIC_BASE` after power-up, but for the bootstrap processor's bit: xAPIC mode, registers at
/// 0xfee00000.
pub const BASE_RESET: u64 = 0xfee0_0000 | GLOBAL_ENABLE;

/// Mode of a local APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApicMode {
    /// As if there was none: neither register interface, no messages.
    Disabled,
    /// Registers in memory, IDs of 8 bits.
    Xapic,
    /// Registers in MSRs, IDs of 32 bits.
    X2apic,
}

/// The mode that a value of the base register selects; `None` for the invalid one.
const fn mode_of(base: u64) -> Option<ApicMode> {
    match (base & GLOBAL_ENABLE != 0, base & X2APIC != 0) {
        (false, false) => Some(ApicMode::Disabled),
        (true, false) => Some(ApicMode::Xapic),
        (true, true) => Some(ApicMode::X2apic),
        (false, true) => None,
    }
}

impl LocalApic {
    /// `IA32_APIC_BASE`.
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// The mode that the APIC is in.
    #[must_use]
    pub const fn mode(&self) -> ApicMode {
        match mode_of(self.base) {
            Some(mode) => mode,
            None => ApicMode::Disabled,
        }
    }

    /// Guest-physical address of the page of registers in xAPIC mode; `None` in other modes.
    #[must_use]
    pub fn mmio_base(&self) -> Option<u64> {
        (self.mode() == ApicMode::Xapic).then_some(self.base & BASE_ADDRESS)
    }

    /// Writes `IA32_APIC_BASE` for the guest.
    ///
    /// # Errors
    /// If a reserved bit is set, the mode is invalid, or the guest may not go to it from the
    /// present one (SDM vol. 3, figure 12-27).
    pub fn write_base(&mut self, value: u64) -> Result<(), Refused> {
        self.check_base(value)?;
        let new = mode_of(value).ok_or(Refused)?;
        match (self.mode(), new) {
            (ApicMode::X2apic, ApicMode::Xapic) | (ApicMode::Disabled, ApicMode::X2apic) => {
                Err(Refused)
            }
            _ => self.set_base(value),
        }
    }

    /// Sets `IA32_APIC_BASE` for the host, from any mode to any other: for a hypervisor that keeps
    /// the register itself.
    ///
    /// # Errors
    /// If a reserved bit is set, or the mode is invalid.
    pub fn set_base(&mut self, value: u64) -> Result<(), Refused> {
        self.check_base(value)?;
        let (old, new) = (self.mode(), mode_of(value).ok_or(Refused)?);
        self.base = value;
        if old != new {
            match new {
                // All state is lost (SDM vol. 3, 12.4.3).
                ApicMode::Disabled => self.reset_registers(),
                ApicMode::Xapic => [self.xapic_id, ..] = self.id.to_le_bytes(),
                ApicMode::X2apic => {}
            }
        }
        Ok(())
    }

    pub(super) fn check_base(&self, value: u64) -> Result<(), Refused> {
        let beyond = u64::MAX.checked_shl(self.config.address_bits.into()).unwrap_or(0);
        let x2apic = if self.config.has_x2apic { 0 } else { X2APIC };
        let is_valid = value & (beyond | RESERVED | x2apic) == 0 && mode_of(value).is_some();
        if is_valid { Ok(()) } else { Err(Refused) }
    }
}
