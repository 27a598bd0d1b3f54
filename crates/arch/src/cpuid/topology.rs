//! The topology leaves of Intel's numbering, which AMD CPUs have in part too.

use super::{CpuidEntry, Guest, Leaves};

/// Leaf 4, deterministic cache parameters (SDM vol. 2, CPUID leaf 04H): the cores of the package in
/// EAX[31:26], and in EAX[25:14] how many of them share each cache: the last level all, the others
/// none.
pub(super) fn caches(leaves: &mut Leaves, guest: &Guest) {
    let cores = guest.core_ids().saturating_sub(1);
    for leaf in leaves.of(4).filter(|leaf| cache_level(leaf).is_some()) {
        let sharing = if cache_level(leaf) >= Some(3) { cores.min(0xfff) } else { 0 };
        leaf.eax = leaf.eax & 0x3fff | sharing << 14 | cores.min(0x3f) << 26;
    }
}

/// The level of the cache that an entry of leaf 4 or 0x8000001D describes, in EAX[7:5]. EAX[4:0] is
/// 0 if it describes none.
pub(super) fn cache_level(entry: &CpuidEntry) -> Option<u32> {
    (entry.eax & 0x1f != 0).then_some((entry.eax >> 5) & 7)
}

/// Leaves 0xB and 0x1F, extended topology (SDM vol. 2, CPUID leaves 0BH and 1FH): one thread per
/// core, the cores of the package, and in EDX the x2APIC id of this one. Leaf 0x1F only where the
/// host lists it.
pub(super) fn extended(leaves: &mut Leaves, guest: &Guest) {
    leaves.replace(0xb, levels(0xb, guest));
    if leaves.get(0x1f).is_some() {
        leaves.replace(0x1f, levels(0x1f, guest));
    }
}

fn levels(function: u32, guest: &Guest) -> [CpuidEntry; 3] {
    const THREAD: u32 = 1 << 8;
    const CORE: u32 = 2 << 8;
    // EAX: the bits of the id below the next level; EBX: the logical CPUs at this level.
    let level = |index: u32, kind: u32, eax: u32, ebx: u32| CpuidEntry {
        function,
        index: Some(index),
        eax,
        ebx,
        ecx: index | kind,
        edx: guest.vcpu_index,
    };
    [
        level(0, THREAD, 0, 1),
        level(1, CORE, guest.core_bits(), guest.vcpu_count.clamp(1, 0xffff)),
        level(2, 0, 0, 0),
    ]
}
