//! Values of model-specific registers.

/// The multiplier of a guest's counter that is the platform's.
const TSC_UNIT: u64 = 1 << TSC_FRACTION;
/// Bits of the multiplier behind the point, as in VMX (Intel SDM vol. 3, 26.6.5).
pub(crate) const TSC_FRACTION: u32 = 48;

/// PAT after a reset.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// Model-specific registers that are not in another part of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Msrs {
    /// Ticks of the guest's counter for one of the platform's, with 48 bits behind the point.
    pub(crate) tsc_multiplier: u64,
    pub(crate) tsc_offset: u64,
    pub(crate) tsc_adjust: u64,
    pub(crate) tsc_aux: u64,
    pub(crate) sysenter_cs: u64,
    pub(crate) sysenter_esp: u64,
    pub(crate) sysenter_eip: u64,
    pub(crate) misc_enable: u64,
    pub(crate) pat: u64,
    pub(crate) star: u64,
    pub(crate) lstar: u64,
    pub(crate) cstar: u64,
    pub(crate) sfmask: u64,
    pub(crate) kernel_gs_base: u64,
}

impl Default for Msrs {
    fn default() -> Self {
        Self {
            tsc_multiplier: TSC_UNIT,
            tsc_offset: 0,
            tsc_adjust: 0,
            tsc_aux: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            misc_enable: 1,
            pat: PAT_RESET,
            star: 0,
            lstar: 0,
            cstar: 0,
            sfmask: 0,
            kernel_gs_base: 0,
        }
    }
}

impl Msrs {
    /// The guest's time-stamp counter at this one of the platform.
    pub(crate) fn tsc(&self, platform: u64) -> u64 {
        let ticks = u128::from(platform).wrapping_mul(self.tsc_multiplier.into()) >> TSC_FRACTION;
        (ticks as u64).wrapping_add(self.tsc_offset)
    }
}
