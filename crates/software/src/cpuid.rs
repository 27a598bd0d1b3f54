//! CPUID leaves about the virtual machine.

use nerite_arch::CpuidEntry;

use crate::clock::TSC_KHZ;

/// The leaves of the processor, with those about its clock.
pub(crate) fn supported() -> Vec<CpuidEntry> {
    let mut leaves = nerite_x86::supported_cpuid();
    // The hypervisor's leaves, of which 0x40000010 is the rate of the TSC in kHz, as VMware and KVM
    // have it.
    let signature = *b"NeriteNerite";
    let word = |at: usize| {
        let bytes =
            signature.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        u32::from_le_bytes(bytes)
    };
    let entry =
        |function, eax, ebx, ecx, edx| CpuidEntry { function, index: None, eax, ebx, ecx, edx };
    leaves.push(entry(0x4000_0000, 0x4000_0010, word(0), word(4), word(8)));
    leaves.push(entry(0x4000_0010, TSC_KHZ.get(), 0, 0, 0));
    // The TSC is invariant (Intel SDM vol. 3, 19.17.1): all vCPUs have the clock of the VM.
    leaves.push(entry(0x8000_0007, 0, 0, 0, 1 << 8));
    leaves
}

/// Bits of a guest-physical address (CPUID.80000008H:EAX).
pub(crate) fn address_bits() -> u8 {
    let leaf = nerite_x86::supported_cpuid().into_iter().find(|leaf| leaf.function == 0x8000_0008);
    leaf.map_or(36, |leaf| leaf.eax.to_le_bytes()[0])
}
