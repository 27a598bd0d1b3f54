//! The topology leaves that only AMD CPUs have (APM vol. 3, appendix E.4).

use super::topology::cache_level;
use super::{CpuidEntry, Guest, Leaves};

/// Leaf 0x80000008 (APM E.4.7): ECX[7:0] is the number of cores less one, ECX[15:12] the bits of
/// the APIC id that number them. With it goes `CmpLegacy` of leaf 0x80000001, ECX bit 1: more than
/// one core in the package.
pub(super) fn core_count(leaves: &mut Leaves, guest: &Guest) {
    let last = guest.vcpu_count.clamp(1, 0x100).saturating_sub(1);
    for leaf in leaves.of(0x8000_0008) {
        leaf.ecx = leaf.ecx & !0xf0ff | guest.core_bits().min(0xf) << 12 | last;
    }
    for leaf in leaves.of(0x8000_0001) {
        leaf.ecx = leaf.ecx & !2 | if guest.vcpu_count > 1 { 2 } else { 0 };
    }
}

/// Leaf 0x8000001D, cache topology (APM E.4.15): EAX[25:14] is how many CPUs share the cache, less
/// one.
pub(super) fn caches(leaves: &mut Leaves, guest: &Guest) {
    let last = guest.vcpu_count.clamp(1, 0x1000).saturating_sub(1);
    for leaf in leaves.of(0x8000_001d) {
        let sharing = match cache_level(leaf) {
            Some(3..) => last,
            Some(_) => 0,
            None => continue,
        };
        leaf.eax = leaf.eax & 0x3fff | sharing << 14;
    }
}

/// Leaf 0x8000001E (APM E.4.16): EAX is the extended APIC id, EBX[7:0] the core id and EBX[15:8]
/// its threads less one, ECX the node, of which there is one. Reserved where the host has no
/// topology extensions, so left alone there.
///
/// Leaf 0x80000026, extended topology, repeats what leaf 0xB says. It describes the host, so it is
/// emptied.
pub(super) fn ids(leaves: &mut Leaves, guest: &Guest) {
    const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;
    for leaf in leaves.of(0x8000_0026) {
        *leaf = CpuidEntry { function: leaf.function, index: leaf.index, ..CpuidEntry::default() };
    }
    let extensions =
        leaves.get(0x8000_0001).is_some_and(|leaf| leaf.ecx & TOPOLOGY_EXTENSIONS != 0);
    if !extensions {
        return;
    }
    for leaf in leaves.of(0x8000_001e) {
        leaf.eax = guest.vcpu_index;
        leaf.ebx = guest.vcpu_index & 0xff;
        leaf.ecx = 0;
    }
}
