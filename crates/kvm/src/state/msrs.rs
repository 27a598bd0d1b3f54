//! The MSRs that are a part of a vCPU's state.

use nerite_hypervisor::ParavirtualMsr;

pub(super) const TSC: u32 = 0x10;
pub(super) const TSC_DEADLINE: u32 = 0x6e0;

/// MSRs that KVM does not list and that are state: the memory types (Intel SDM vol. 3, 13.11), and
/// machine-check status and control.
const ALWAYS: [u32; 30] = [
    0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207, 0x208, 0x209, 0x20a, 0x20b, 0x20c,
    0x20d, 0x20e, 0x20f, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e,
    0x26f, 0x2ff, 0x17a, 0x17b,
];

/// Returns `true` if an MSR of KVM's list is no state of a guest.
fn is_no_state(index: u32) -> bool {
    match index {
        // In another part: time-stamp counter, deadline.
        TSC | TSC_DEADLINE => true,
        // Properties of the host or of the VM, which the guest cannot change: feature control,
        // microcode version, platform, capabilities, SMM, nested virtualisation, which is hidden.
        0x34 | 0x3a | 0x8b | 0x9e | 0xce | 0x10a | 0x345 => true,
        0x480..=0x4ff | 0xc000_0104 | 0xc001_0114..=0xc001_0117 | 0xc001_1029 => true,
        // Performance counters and traces, which are hidden.
        0xc1..=0xc8 | 0x186..=0x18d | 0x1a6 | 0x1a7 | 0x309..=0x30c | 0x329 | 0x38d..=0x390 => true,
        0x3f1 | 0x3f2 | 0x560..=0x58f | 0x600 => true,
        0xc000_0300..=0xc000_0303 | 0xc001_0000..=0xc001_0007 | 0xc001_0200..=0xc001_020b => true,
        // Another hypervisor's interface, which is not offered.
        0x4000_0000..=0x4000_01ff => true,
        // Of a paravirtual feature that is not known here.
        0x4b56_4d00..=0x4b56_4dff => ParavirtualMsr::of(index).is_none(),
        _ => false,
    }
}

/// Indices of the MSRs that are saved and restored, from KVM's list.
pub(super) fn state_msrs(listed: &[u32]) -> Vec<u32> {
    let mut indices: Vec<u32> = listed.iter().chain(&ALWAYS).copied().collect();
    indices.retain(|index| !is_no_state(*index));
    indices.sort_unstable();
    indices.dedup();
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msrs_of_other_parts_and_of_the_host_are_no_state() {
        let listed = [TSC, TSC_DEADLINE, 0x174, 0x277, 0x10a, 0x480, 0x4000_0000, 0x4b56_4d01];
        let state = state_msrs(&listed);
        assert_eq!(state.iter().filter(|index| !ALWAYS.contains(index)).count(), 3);
        assert!([0x174, 0x277, 0x2ff, 0x4b56_4d01].iter().all(|index| state.contains(index)));
    }
}
